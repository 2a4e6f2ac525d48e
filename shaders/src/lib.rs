//! Tern's kernels: hand-written WGSL, the parameter structs they read, and a CPU twin of each.
//!
//! This crate knows nothing of any GPU interface, so that a server without one can aggregate.
//! `tern-engine` runs the kernels; the twins are the reference for its tests and the fallback
//! of its `Cpu` device.

mod activation;
mod kernel;
pub mod kernels;
pub mod preludes;
mod real;
mod registry;
mod rows;
pub mod schedule;
pub mod state;

pub use activation::{Activation, activate, activate_gradient, sigmoid};
pub use kernel::{
    Access, Arg, Binding, Element, Feature, Kernel, MAX_GROUPS, Prelude, Twin, TwinFn, Variant,
    linear_grid,
};
pub use real::Real;
pub use registry::{FAMILIES, kernels};
