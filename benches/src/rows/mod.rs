//! Cases large enough to be timed, besides those that the engine checks.

mod attention;
mod federated;
mod gather;
mod loss;
mod memory;
mod network;
mod training;

use tern_engine::ops::Case;
use tern_engine::{Data, Device, Kind};
use tern_shaders::kernels::matmul::Gemm;
use tern_shaders::kernels::normalize::{LAYER_NORM_FORWARD, LayerNormForward};
use tern_shaders::kernels::random::{pcg4d, uniform};
use tern_shaders::{Access, AnyKernel, Element, Kernel, Variant};

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
pub fn rows(size: Size) -> Vec<Case> {
    [
        network::rows(size),
        attention::rows(size),
        training::rows(size),
        federated::rows(size),
        memory::rows(size),
        gather::rows(size),
    ]
    .concat()
}

/// Layer norm of so many rows, with its gain and bias in one vector.
fn layer_norm(rows: u32, width: u32) -> Case {
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
pub fn product(kernel: &'static Kernel<Gemm>, sizes: [u32; 3]) -> Case {
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

/// Floats in [−1, 1).
pub fn floats(n: usize, key: u32) -> Data {
    Data::F32((0..n as u32).map(|i| 2.0 * uniform(pcg4d([i, key, 0, 0])[0]) - 1.0).collect())
}

/// Words below `bound`.
fn words(n: usize, bound: u32, key: u32) -> Data {
    Data::U32((0..n as u32).map(|i| pcg4d([i, key, 0, 1])[0] % bound).collect())
}

/// Any words.
fn bits(n: usize, key: u32) -> Data {
    Data::U32((0..n as u32).map(|i| pcg4d([i, key, 0, 2])[0]).collect())
}

/// A case from its kernel and parameters, `lengths` elements in each buffer, random floats;
/// words have to be given. Every buffer is counted as read, and as written where it can be.
fn case<P: bytemuck::Pod>(
    kernel: &'static Kernel<P>,
    label: impl Into<String>,
    params: &P,
    buffers: Vec<Data>,
) -> Case {
    let mut case = Case::new(kernel, label, params, 1, buffers);
    let sizes = case.buffers.iter().map(|b| 4 * b.len() as u64);
    case.bytes = sizes
        .zip(kernel.bindings)
        .map(|(bytes, b)| {
            if b.access == Access::ReadWrite && updates(kernel, b.name) { 2 * bytes } else { bytes }
        })
        .sum();
    case.tolerance(5e-5)
}

/// Whether a kernel reads what it writes: in place, or adding to it.
fn updates(kernel: &AnyKernel, binding: &str) -> bool {
    match kernel.name {
        "optimizer/norm_partial" => false,
        name if name.starts_with("optimizer/") => true,
        "ternary/quantize" => binding == "residual",
        "aggregate/accumulate" | "update/rescale" => true,
        _ => false,
    }
}

/// Random data for every buffer of a kernel whose bindings are all floats.
fn all_floats(kernel: &AnyKernel, lengths: &[usize]) -> Vec<Data> {
    debug_assert!(kernel.bindings.iter().all(|b| b.element == Element::F32));
    lengths.iter().enumerate().map(|(i, n)| floats(*n, i as u32)).collect()
}
