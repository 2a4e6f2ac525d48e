//! Batches from a data set on the device.

use crate::Kernel;

/// Kernels of this family.
pub static KERNELS: &[&Kernel] = &[];
