//! Row, column and full reductions.

use crate::Kernel;

/// Kernels of this family.
pub static KERNELS: &[&Kernel] = &[];
