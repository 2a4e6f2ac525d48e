//! Every kernel there is.

use crate::AnyKernel;

/// The kernels, family by family.
pub static FAMILIES: &[&[&AnyKernel]] = &[
    crate::kernels::matmul::KERNELS,
    crate::kernels::half::KERNELS,
    crate::kernels::lstm::KERNELS,
    crate::kernels::gru::KERNELS,
    crate::kernels::embedding::KERNELS,
    crate::kernels::loss::KERNELS,
    crate::kernels::metrics::KERNELS,
    crate::kernels::pointwise::KERNELS,
    crate::kernels::reduce::KERNELS,
    crate::kernels::dropout::KERNELS,
    crate::kernels::normalize::KERNELS,
    crate::kernels::attention::KERNELS,
    crate::kernels::convolution::KERNELS,
    crate::kernels::optimizer::KERNELS,
    crate::kernels::ternary::KERNELS,
    crate::kernels::masked::KERNELS,
    crate::kernels::aggregate::KERNELS,
    crate::kernels::update::KERNELS,
    crate::kernels::data::KERNELS,
    crate::kernels::state::KERNELS,
    crate::kernels::roofline::KERNELS,
];

/// Every kernel.
pub fn kernels() -> impl Iterator<Item = &'static AnyKernel> {
    FAMILIES.iter().copied().flatten().copied()
}
