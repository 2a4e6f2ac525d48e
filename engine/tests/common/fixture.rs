//! PyTorch's numbers: the files beside, and how close to them a device has to come.

use std::path::PathBuf;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;
use tern_engine::Device;

use super::devices;

/// Reference: hyperparameters reach the references as `f32`. Others: ten steps of `f32` arithmetic.
pub fn tolerance(device: &Device) -> f64 {
    if device.name().starts_with("Reference") { 2e-7 } else { 2e-4 }
}

/// The reference in double precision, and every device.
pub fn all_devices() -> Vec<Device> {
    [Device::reference_f64()].into_iter().chain(devices()).collect()
}

/// The file of a fixture.
pub fn path(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(format!("{name}.safetensors"))
}

/// What PyTorch computed, by name.
pub struct Fixture(Vec<u8>);

impl Fixture {
    pub fn open(name: &str) -> Self {
        Fixture(std::fs::read(path(name)).unwrap())
    }

    pub fn parse(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    pub fn setting(&self, key: &str) -> Value {
        let (_, header) = SafeTensors::read_metadata(&self.0).unwrap();
        let settings = &header.metadata().as_ref().unwrap()["settings"];
        serde_json::from_str::<Value>(settings).unwrap()[key].clone()
    }

    pub fn number(&self, key: &str) -> f64 {
        self.setting(key).as_f64().unwrap_or(0.0)
    }

    pub fn f64(&self, name: &str) -> Vec<f64> {
        let tensors = self.parse();
        let tensor = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        match tensor.dtype() {
            Dtype::F64 => {
                let chunks = tensor.data().as_chunks::<8>().0.iter();
                chunks.map(|b| f64::from_le_bytes(*b)).collect()
            }
            Dtype::F32 => self.f32(name).into_iter().map(f64::from).collect(),
            other => panic!("{name} holds {other:?}"),
        }
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        let chunks = self.parse().tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
        chunks.into_iter().map(f32::from_le_bytes).collect()
    }

    pub fn u32(&self, name: &str) -> Vec<u32> {
        let chunks = self.parse().tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
        chunks.into_iter().map(u32::from_le_bytes).collect()
    }
}

/// Holds numbers against PyTorch's, relative to the largest of those and 1.
pub fn close(what: &str, device: &Device, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / scale;
        assert!(
            error <= tolerance,
            "{} {what}[{i}]: {found}, PyTorch has {expected}",
            device.name()
        );
    }
}
