//! PyTorch's numbers: the files beside, and how close to them a device has to come.

pub mod file;

pub use file::Fixture;
use tern_engine::{Device, Parameters};

use super::devices;

/// Reference: hyperparameters reach the references as `f32`. Others: ten steps of `f32` arithmetic.
pub fn tolerance(device: &Device) -> f64 {
    if device.name().starts_with("Reference") { 2e-7 } else { 2e-4 }
}

/// The reference in double precision, and every device.
pub fn all_devices() -> Vec<Device> {
    [Device::reference_f64()].into_iter().chain(devices()).collect()
}

impl Fixture {
    pub fn number(&self, key: &str) -> f64 {
        self.setting(key).as_f64().unwrap_or(0.0)
    }

    /// Values of all parameters, as the flat vector has them.
    pub fn flat(&self, parameters: &Parameters) -> Vec<f32> {
        self.flat_of("", parameters)
    }

    /// [`Fixture::flat`] of what is named by a prefix and a parameter.
    pub fn flat_of(&self, prefix: &str, parameters: &Parameters) -> Vec<f32> {
        let mut flat = vec![0.0; parameters.words()];
        for p in parameters.iter() {
            let values = self.f32(&format!("{prefix}{}", p.name));
            flat[p.offset..][..p.len()].copy_from_slice(&values);
        }
        flat
    }

    /// Holds a flat vector against what is named `prefix.` and a parameter.
    pub fn close_flat(
        &self,
        (prefix, parameters): (&str, &Parameters),
        device: &Device,
        flat: &[f64],
        tolerance: f64,
    ) {
        for p in parameters.iter() {
            let name = format!("{prefix}.{}", p.name);
            close(&name, device, &flat[p.offset..][..p.len()], &self.f64(&name), tolerance);
        }
    }
}

/// Holds what a device computed against PyTorch's numbers, relative to the largest of those and 1.
pub fn close(what: &str, device: &Device, found: &[f64], expected: &[f64], tolerance: f64) {
    file::close(&device.name(), what, found, expected, tolerance);
}
