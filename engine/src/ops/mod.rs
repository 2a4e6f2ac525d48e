//! Wrappers of the kernels: shape checks, recording, backward, and cases for tests and benches.
//!
//! A [`Case`] holds a device against the `f64` reference of a kernel:
//!
//! ```rust
//! use tern_engine::ops::Case;
//! use tern_engine::{Data, Device};
//! use tern_shaders::kernels::pointwise::{SCALE, Scale};
//!
//! # fn main() -> tern_engine::Result<()> {
//! // y = 2 x, of three numbers; what y holds before is overwritten.
//! let params = Scale { n: 3, factor: 2.0, accumulate: 0 };
//! let buffers = vec![Data::F32(vec![1.0, 2.0, 3.0]), Data::F32(vec![9.0; 3])];
//! let case = Case::new(&SCALE, "three numbers", &params, 1, buffers);
//! assert_eq!(case.check(&Device::cpu())?.error, 0.0);
//! # Ok(())
//! # }
//! ```

pub mod aggregate;
pub mod attention;
mod case;
mod check;
pub mod convolution;
pub mod data;
pub mod dropout;
pub mod embedding;
mod gemm;
pub mod gru;
pub mod half;
#[cfg(test)]
mod hardware;
#[cfg(test)]
mod loops;
pub mod loss;
pub mod lstm;
pub mod masked;
pub mod matmul;
pub mod metrics;
pub mod normalize;
#[cfg(test)]
mod not_a_number;
pub mod optimizer;
pub mod pointwise;
mod recurrent;
pub mod reduce;
pub mod roofline;
pub mod state;
pub mod ternary;
mod timing;
pub mod update;

#[cfg(test)]
pub(crate) mod testing;

use tern_shaders::AnyKernel;

use case::part;
pub use case::{Case, Check, Expected};
pub(crate) use case::{codes, noise};
pub use timing::{CaseTiming, Clock, Costs, quantile};

/// The folder of a family's kernels, and their cases.
type Family = (&'static str, fn() -> Vec<Case>);

const FAMILIES: &[Family] = &[
    ("matmul", matmul::cases),
    ("half", half::cases),
    ("lstm", lstm::cases),
    ("gru", gru::cases),
    ("embedding", embedding::cases),
    ("loss", loss::cases),
    ("metrics", metrics::cases),
    ("pointwise", pointwise::cases),
    ("reduce", reduce::cases),
    ("dropout", dropout::cases),
    ("normalize", normalize::cases),
    ("attention", attention::cases),
    ("convolution", convolution::cases),
    ("optimizer", optimizer::cases),
    ("ternary", ternary::cases),
    ("masked", masked::cases),
    ("aggregate", aggregate::cases),
    ("update", update::cases),
    ("data", data::cases),
    ("state", state::cases),
    ("roofline", roofline::cases),
];

/// Cuts `count` rows or positions into parts of at most `most`: the first of each, and its end.
fn parts(count: u32, most: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..count)
        .step_by(most as usize)
        .map(move |first| (first, count.min(first.saturating_add(most))))
}

/// The mode of a gradient, 0 to overwrite it, in the part that begins at `first`: parts after the
/// first add to it.
fn mode_of_part(first: u32, mode: u32) -> u32 {
    if first > 0 && mode == 0 { 1 } else { mode }
}

/// Every case of every kernel.
pub fn cases() -> Vec<Case> {
    FAMILIES.iter().flat_map(|(_, cases)| cases()).collect()
}

/// Every case of a kernel.
pub(crate) fn cases_of(kernel: &AnyKernel) -> Vec<Case> {
    let family = kernel.name.split('/').next();
    let own = FAMILIES.iter().filter(|(name, _)| family == Some(name));
    own.flat_map(|(_, cases)| cases()).filter(|case| case.kernel.name == kernel.name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// A kernel without cases would be held against nothing.
    #[test]
    fn every_kernel_has_cases() {
        let tried: BTreeSet<&str> = super::cases().iter().map(|case| case.kernel.name).collect();
        for kernel in tern_shaders::kernels() {
            assert!(tried.contains(kernel.name), "{}: no case in engine/src/ops", kernel.name);
        }
    }
}
