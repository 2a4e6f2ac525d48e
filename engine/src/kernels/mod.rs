//! Wrappers of the kernels: shape checks, recording, backward, and cases for tests and benches.

mod case;
mod check;
pub mod convolution;
pub mod data;
pub mod dropout;
pub mod embedding;
pub mod fold;
mod gemm;
pub mod loss;
pub mod lstm;
pub mod masked;
pub mod matmul;
pub mod metrics;
pub mod normalize;
pub mod optimizer;
pub mod pointwise;
pub mod reduce;
pub mod state;
pub mod ternary;
mod timing;
pub mod update;

#[cfg(test)]
pub(crate) mod testing;

pub use case::{Case, Check, Expected};
pub(crate) use case::{codes, noise};
pub use timing::CaseTiming;

/// Every case of every kernel.
pub fn cases() -> Vec<Case> {
    [
        matmul::cases(),
        lstm::cases(),
        embedding::cases(),
        loss::cases(),
        metrics::cases(),
        pointwise::cases(),
        reduce::cases(),
        dropout::cases(),
        normalize::cases(),
        convolution::cases(),
        optimizer::cases(),
        ternary::cases(),
        masked::cases(),
        fold::cases(),
        update::cases(),
        data::cases(),
        state::cases(),
    ]
    .concat()
}
