//! The state record: what changes from step to step, kept on the device, one record a replica.
//!
//! A plan owns one buffer of `replicas × WORDS` words. The `state/*` kernels advance it, so
//! that nothing per step comes from the CPU.

use crate::schedule::Schedule;

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
/// Factor of the schedule's learning rates for this replica, the bits of an `f32`.
pub const SCALE: usize = 10;

/// The record of a replica that is about to train `limit` steps on the `count` samples from
/// `base` on, in batches of `batch`. Without samples or steps it rests.
pub fn record(
    seed: u32,
    base: u32,
    count: u32,
    limit: u32,
    batch: u32,
    schedule: &Schedule,
) -> [u32; WORDS] {
    let mut record = [0; WORDS];
    record[ACTIVE] = u32::from(count > 0 && limit > 0);
    record[SEED] = seed;
    record[BASE] = base;
    record[COUNT] = count;
    record[ROWS] = batch.min(count);
    record[RATE] = (schedule.rate(0) as f32).to_bits();
    record[LIMIT] = limit;
    record[SCALE] = 1f32.to_bits();
    record
}

/// A new record with learning rates of `scale` times the schedule's.
pub fn scaled(mut record: [u32; WORDS], scale: f32) -> [u32; WORDS] {
    record[RATE] = (f32::from_bits(record[RATE]) * scale).to_bits();
    record[SCALE] = scale.to_bits();
    record
}

/// The record of a replica that reads a text stream: `base` is the first token of its part,
/// and an epoch has `count` steps, each of `batch` full rows.
pub fn stream_record(
    seed: u32,
    base: u32,
    count: u32,
    limit: u32,
    batch: u32,
    schedule: &Schedule,
) -> [u32; WORDS] {
    let mut record = record(seed, base, count, limit, batch, schedule);
    record[ROWS] = batch;
    record
}
