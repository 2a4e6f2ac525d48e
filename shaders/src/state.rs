//! The state record: what changes from step to step, kept on the device, one record a replica.
//!
//! A plan owns one buffer of `replicas × WORDS` words. The `state/*` kernels advance it, so
//! that nothing per step comes from the CPU.
//!
//! ```rust
//! use tern_shaders::schedule::Schedule;
//! use tern_shaders::state::{ROWS, StateRecord};
//!
//! // Seed 7, samples 10 to 12, batches of 4, 100 steps.
//! let record = StateRecord::new(7, 10..13, 4, 100, &Schedule::constant(0.1));
//! assert!(record.is_active());
//! // There are only three samples for the first batch.
//! assert_eq!((record.steps(), record[ROWS]), (0, 3));
//! ```

use std::ops::{Deref, DerefMut, Range};

use crate::schedule::Schedule;

/// Words a record takes: 256 bytes, so that a record can start a binding.
pub const WORDS: usize = 64;
/// Training steps completed, those among them that were skipped.
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
/// 1 once the replica's loss was not a number, or its gradient's norm not finite. It rests before
/// the update of that step.
pub const FAILED: usize = 11;
/// Steps, of those completed, that changed nothing since their gradients were not finite.
pub const SKIPPED: usize = 12;
/// Factor on the loss in the backward pass, the bits of an `f32`; 0 until a plan that scales it begins.
pub const LOSS_SCALE: usize = 13;
/// Updates since the factor was changed.
pub const STEADY: usize = 14;
/// 1 from the check to the end of a step that changes nothing.
pub const SKIPS: usize = 15;

/// Updates that the replica's parameters have had in this training.
pub fn updates(record: &[u32]) -> u32 {
    record[STEP].wrapping_sub(record[SKIPPED])
}

/// The state record of a replica. It derefs to its words, which the constants of this module name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRecord([u32; WORDS]);

impl StateRecord {
    /// Of a replica that rests.
    pub const IDLE: StateRecord = StateRecord([0; WORDS]);

    /// Of a replica that is about to train `limit` steps on the samples of `part`, in batches of
    /// `batch`. Without samples or steps it rests.
    pub fn new(seed: u32, part: Range<u32>, batch: u32, limit: u32, schedule: &Schedule) -> Self {
        let count = part.end.saturating_sub(part.start);
        let mut record = StateRecord::IDLE;
        record[ACTIVE] = u32::from(count > 0 && limit > 0);
        record[SEED] = seed;
        record[BASE] = part.start;
        record[COUNT] = count;
        record[ROWS] = batch.min(count);
        record[RATE] = (schedule.rate(0) as f32).to_bits();
        record[LIMIT] = limit;
        record[SCALE] = 1f32.to_bits();
        record
    }

    /// Of a replica that reads a text stream: `part` starts at its first token, and an epoch has
    /// as many steps as the part is long, each of `batch` full rows.
    pub fn stream(
        seed: u32,
        part: Range<u32>,
        batch: u32,
        limit: u32,
        schedule: &Schedule,
    ) -> Self {
        let mut record = StateRecord::new(seed, part, batch, limit, schedule);
        record[ROWS] = batch;
        record
    }

    /// With learning rates of `scale` times the schedule's; for a record that is new.
    pub fn scaled(mut self, scale: f32) -> Self {
        self[RATE] = (f32::from_bits(self[RATE]) * scale).to_bits();
        self[SCALE] = scale.to_bits();
        self
    }

    /// After `done` steps, none of them skipped, with as many to come as before.
    pub fn resumed(mut self, done: u32) -> Self {
        self[STEP] = done;
        self[LIMIT] = done.saturating_add(self[LIMIT]);
        self
    }

    /// The words of records, one after the other, as kernels read them.
    pub fn words(records: &[StateRecord]) -> Vec<u32> {
        records.iter().flat_map(|record| record.0).collect()
    }

    /// Training steps completed, those among them that were [skipped](Self::skipped).
    pub fn steps(&self) -> u32 {
        self[STEP]
    }

    /// Whether the replica rests because its loss was not a number, or its gradient's norm not
    /// finite, in the step after those that are completed.
    pub fn has_failed(&self) -> bool {
        self[FAILED] != 0
    }

    /// Steps, of those completed, that changed nothing since their gradients were not finite under the
    /// factor on the loss.
    pub fn skipped(&self) -> u32 {
        self[SKIPPED]
    }

    /// The factor on the loss in the backward pass, after the steps that are completed; `None` before the
    /// first and where none is used.
    pub fn loss_scale(&self) -> Option<f32> {
        (self[LOSS_SCALE] != 0).then(|| f32::from_bits(self[LOSS_SCALE]))
    }

    /// Whether the replica trains; if not, it rests and its parameters stay.
    pub fn is_active(&self) -> bool {
        self[ACTIVE] != 0
    }
}

impl From<[u32; WORDS]> for StateRecord {
    fn from(words: [u32; WORDS]) -> Self {
        StateRecord(words)
    }
}

impl Deref for StateRecord {
    type Target = [u32; WORDS];

    fn deref(&self) -> &[u32; WORDS] {
        &self.0
    }
}

impl DerefMut for StateRecord {
    fn deref_mut(&mut self) -> &mut [u32; WORDS] {
        &mut self.0
    }
}
