//! Fast functions of the `Cpu` device, one table: kernel name → function. A kernel that
//! isn't here runs by its reference. Each is tested against the reference like any GPU kernel.

pub(crate) mod aggregate;
mod attention;
mod chacha;
mod convolution;
mod data;
mod dropout;
mod embedding;
mod groups;
mod gru;
mod half;
pub(crate) mod isa;
mod loss;
mod lstm;
mod masked;
mod matmul;
mod metrics;
mod mixed;
mod normalize;
mod optimizer;
pub(crate) mod parallel;
mod part;
mod planes;
mod pointwise;
mod pooling;
mod product;
mod random;
mod reduce;
mod roofline;
mod scratch;
mod ternary;
mod update;
mod vector;

use tern_shaders::{AnyKernel, ReferenceFn};

type Table = &'static [(&'static str, ReferenceFn<f32>)];

static TABLES: &[Table] = &[
    matmul::TABLE,
    half::TABLE,
    reduce::TABLE,
    lstm::TABLE,
    lstm::state::TABLE,
    gru::TABLE,
    embedding::TABLE,
    loss::TABLE,
    loss::weighted::TABLE,
    metrics::TABLE,
    pointwise::TABLE,
    pointwise::binary::TABLE,
    pointwise::cast::TABLE,
    pointwise::copy::TABLE,
    pointwise::softmax::TABLE,
    pointwise::strided::TABLE,
    pointwise::swiglu::TABLE,
    dropout::TABLE,
    normalize::TABLE,
    groups::TABLE,
    attention::TABLE,
    convolution::TABLE,
    pooling::TABLE,
    optimizer::TABLE,
    ternary::TABLE,
    masked::TABLE,
    aggregate::TABLE,
    update::TABLE,
    data::TABLE,
    roofline::TABLE,
];

/// The fast function of a kernel, if it has one.
pub(crate) fn fast(kernel: &AnyKernel) -> Option<ReferenceFn<f32>> {
    TABLES.iter().copied().flatten().find(|(name, _)| *name == kernel.name).map(|(_, f)| *f)
}

#[cfg(test)]
mod tests {
    /// A fast function under a name that no kernel has would never run.
    #[test]
    fn every_fast_function_is_a_kernels() {
        let names = super::TABLES.iter().copied().flatten().map(|(name, _)| *name);
        for name in names {
            let known = tern_shaders::kernels().any(|kernel| kernel.name == name);
            assert!(known, "engine/src/cpu: no kernel is named {name}");
        }
    }
}
