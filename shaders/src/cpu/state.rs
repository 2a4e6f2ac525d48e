//! The state record's advance.

use crate::Kernel;

/// Kernels of this family.
pub static KERNELS: &[&Kernel] = &[];
