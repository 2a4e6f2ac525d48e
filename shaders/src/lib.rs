//! Tern's kernels: hand-written WGSL, the parameter structs they read, and a reference
//! implementation of each in plain Rust.
//!
//! This crate knows nothing of any GPU interface, so that a server without one can aggregate.
//! `tern-engine` runs the kernels; the reference implementations are what its tests compare with, and the fallback
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
    Access, AnyKernel, Arg, Binding, Element, Feature, Kernel, MAX_GROUPS, Prelude, Reference,
    ReferenceFn, Variant, linear_grid,
};
pub use real::Real;
pub use registry::{FAMILIES, kernels};
