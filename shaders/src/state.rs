//! The state record: what changes from step to step, kept on the device, one record a replica.
//!
//! A plan owns one buffer of `replicas × WORDS` words. The `state/*` kernels advance it, so
//! that nothing per step comes from the CPU.

/// Words a record takes: 256 bytes, so that a record can start a binding.
pub const WORDS: usize = 64;
/// Optimizer steps completed.
pub const STEP: usize = 0;
/// 1 while this replica trains; 0 once its step limit is reached, and its parameters stay.
pub const ACTIVE: usize = 1;
/// Seed of the replica's random streams.
pub const SEED: usize = 2;
/// First sample of this replica's part of the data set.
pub const BASE: usize = 3;
/// Number of samples in its part.
pub const COUNT: usize = 4;
/// Samples of the epoch already used.
pub const CURSOR: usize = 5;
/// Epochs completed; part of the shuffle's key.
pub const EPOCH: usize = 6;
/// Rows of the current batch that hold samples; the rest of a short batch is masked.
pub const ROWS: usize = 7;
/// Learning rate of the current step, the bits of an `f32`.
pub const RATE: usize = 8;
/// Steps after which the replica stops.
pub const LIMIT: usize = 9;
