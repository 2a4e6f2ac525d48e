//! Weighted 64-bit fixed-point accumulation.

use crate::Kernel;

/// Kernels of this family.
pub static KERNELS: &[&Kernel] = &[];
