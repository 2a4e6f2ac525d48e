//! What the bench suite measures of a device, on a machine or in a browser: its roofline, all cases
//! of every kernel, kernels by the clock, training steps; and the report of it that people send each
//! other. The command `tern-benches` prints it, and measures more.

pub mod budget;
pub mod device;
pub mod kernels;
pub mod measure;
pub mod models;
pub mod report;
pub mod roofline;
pub mod rows;
pub mod training;
mod watch;

pub use watch::Watch;
