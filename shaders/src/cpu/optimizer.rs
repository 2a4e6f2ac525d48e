//! Optimizers over the flat parameter vector.

use crate::Kernel;

/// Kernels of this family.
pub static KERNELS: &[&Kernel] = &[];
