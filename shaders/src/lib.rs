//! Tern's kernels: hand-written WGSL, the parameter structs they read, and a reference
//! implementation of each in plain Rust.
//!
//! This crate knows nothing of any GPU interface, so that a server without one can aggregate.
//! `tern-engine` runs the kernels; the reference implementations are what its tests compare with, and the fallback
//! of its `Cpu` device.
//!
//! A kernel is data, WGSL and a function:
//!
//! ```rust
//! use tern_shaders::kernels::update::{RESCALE, Rescale, rescale};
//!
//! assert_eq!(RESCALE.name, "update/rescale");
//! assert_eq!(RESCALE.bindings[0].name, "scalar");
//! assert!(RESCALE.variants[0].wgsl().contains("fn main"));
//! // Every kernel is in a list.
//! assert!(tern_shaders::kernels().any(|kernel| kernel.name == RESCALE.name));
//!
//! // The reference: x ← scalar · x for two replicas of three numbers.
//! let mut x = [1.0f32, 2.0, 3.0, 1.0, 2.0, 3.0];
//! rescale(&Rescale { n: 3 }, 2, &[0.5, -1.0], &mut x);
//! assert_eq!(x, [0.5, 1.0, 1.5, -1.0, -2.0, -3.0]);
//! ```

mod activation;
mod kernel;
pub mod kernels;
pub mod preludes;
mod real;
mod registry;
mod rows;
pub mod schedule;
pub mod state;
mod unroll;

pub use activation::{Activation, activate, activate_gradient, sigmoid};
pub use kernel::{
    Access, AnyKernel, Arg, Binding, Element, Feature, Kernel, MAX_GROUPS, MAX_ITERATIONS, Prelude,
    Reference, ReferenceFn, Variant, linear_grid,
};
pub use real::Real;
pub use registry::{FAMILIES, kernels};
pub use rows::MAX_SUMMED_ROWS;
