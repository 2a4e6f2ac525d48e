//! Fixed-point encoding under ChaCha20 masks.

use crate::Kernel;

/// Kernels of this family.
pub static KERNELS: &[&Kernel] = &[];
