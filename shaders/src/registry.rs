//! Every kernel there is.

use crate::{Kernel, cpu};

/// The kernels, family by family.
pub static FAMILIES: &[&[&Kernel]] = &[
    cpu::matmul::KERNELS,
    cpu::half::KERNELS,
    cpu::lstm::KERNELS,
    cpu::embedding::KERNELS,
    cpu::loss::KERNELS,
    cpu::metrics::KERNELS,
    cpu::pointwise::KERNELS,
    cpu::reduce::KERNELS,
    cpu::dropout::KERNELS,
    cpu::normalize::KERNELS,
    cpu::convolution::KERNELS,
    cpu::optimizer::KERNELS,
    cpu::ternary::KERNELS,
    cpu::masked::KERNELS,
    cpu::fold::KERNELS,
    cpu::update::KERNELS,
    cpu::data::KERNELS,
    cpu::state::KERNELS,
    cpu::roof::KERNELS,
];

/// Every kernel.
pub fn kernels() -> impl Iterator<Item = &'static Kernel> {
    FAMILIES.iter().copied().flatten().copied()
}
