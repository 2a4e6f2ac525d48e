//! Cases large enough to be timed, besides those that the engine checks.

mod attention;
mod convolution;
mod federated;
mod gather;
mod groups;
mod loss;
mod memory;
mod network;
mod recipe;
mod recurrent;
mod shapes;
mod training;

use tern_engine::ops::Case;
use tern_engine::{Device, Kind};
use tern_shaders::kernels::matmul::Gemm;
use tern_shaders::kernels::normalize::{LAYER_NORM_FORWARD, LayerNormForward};
use tern_shaders::{Kernel, Variant};

pub use recipe::{Recipe, floats};
use recipe::{all_floats, case};

/// Sizes of the rows: quick ones for a look, full ones for figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A tenth of the work or less.
    Quick,
    /// Buffers of 64 MiB, products of up to 2048, on hardware 4096.
    Full,
}

impl Size {
    fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Size::Quick => quick,
            Size::Full => full,
        }
    }
}

/// The rows of all families.
pub fn rows(size: Size) -> Vec<Recipe> {
    [
        network::rows(size),
        convolution::rows(),
        recurrent::rows(size),
        groups::rows(size),
        shapes::rows(size),
        attention::rows(size),
        training::rows(size),
        federated::rows(size),
        memory::rows(size),
        gather::rows(size),
    ]
    .concat()
}

/// Layer norm of so many rows, with its gain and bias in one vector.
fn layer_norm(rows: u32, width: u32) -> Recipe {
    let p = LayerNormForward {
        rows,
        width,
        epsilon: 1e-5,
        gamma_offset: 0,
        beta_offset: width,
        stride: 2 * width,
    };
    let lengths = [rows * width, 2 * width, rows * width, rows, rows].map(|n| n as usize);
    let buffers = all_floats(&LAYER_NORM_FORWARD, &lengths);
    case(&LAYER_NORM_FORWARD, format!("{rows} × {width}"), &p, buffers)
}

/// A product of M × N × K by one of the kernels `matmul/nn`, `matmul/nt` and `matmul/tn`.
pub fn product(kernel: &'static Kernel<Gemm>, sizes: [u32; 3]) -> Recipe {
    network::product(kernel, sizes)
}

/// What a case moves and computes, for its rate.
pub fn rate(case: &Case, seconds: f64) -> (f64, &'static str) {
    // Below some operations a byte, memory is what a kernel waits for.
    if case.flops > 4 * case.bytes {
        (case.flops as f64 / seconds * 1e-9, "GFLOP/s")
    } else {
        (case.bytes as f64 / seconds * 1e-9, "GB/s")
    }
}

/// Whether a device has a way to compute the case.
pub fn fits(case: &Case, device: &Device) -> bool {
    let params = bytemuck::cast_slice(&case.params);
    let fitting = |v: &Variant| device.takes(v, params);
    device.profile().kind == Kind::Cpu || case.kernel.variants.iter().any(fitting)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buffers have the elements that their kernels' bindings and parameters ask for: quick rows
    /// are computed by the reference.
    #[test]
    fn quick_rows_are_what_their_kernels_take() {
        let small = |row: &&Recipe| row.flops.max(row.bytes) < 1 << 22;
        for row in rows(Size::Quick).iter().filter(small) {
            let case = row.case();
            let lens: Vec<usize> = case.buffers.iter().map(tern_engine::Data::len).collect();
            assert_eq!(lens.len(), case.kernel.bindings.len(), "{row:?}");
            if let Err(e) = case.check(&Device::cpu()) {
                panic!("{row:?}: {e}");
            }
        }
    }
}
