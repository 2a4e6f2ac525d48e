//! The state record's way from step to step.
//!
//! ```rust
//! use tern_shaders::kernels::state::{Advance, RING_CHANNELS, advance};
//! use tern_shaders::schedule::Schedule;
//! use tern_shaders::state::{ROWS, StateRecord};
//!
//! // Six samples in batches of 4, after the first step.
//! let schedule = Schedule::constant(0.5);
//! let mut record = StateRecord::new(7, 0..6, 4, 100, &schedule);
//! let p = Advance::new(4, false, 1, &schedule);
//! let mut ring = [0.0f32; RING_CHANNELS];
//! advance(&p, 1, &mut record[..], &[0.75], &[0.0], &mut ring);
//! // Loss, rows and rate are logged; the next batch has the two samples left.
//! assert_eq!(ring[..3], [0.75, 4.0, 0.5]);
//! assert_eq!((record.steps(), record[ROWS]), (1, 2));
//! ```

use crate::schedule::{Decay, Schedule};
use crate::state::{
    ACTIVE, COUNT, CURSOR, EPOCH, FAILED, LIMIT, LOSS_SCALE, RATE, ROWS, SCALE, SKIPPED, SKIPS,
    STEADY, STEP, WORDS,
};
use crate::{AnyKernel, Real, kernel, params};

/// Numbers of a step in the ring: loss, rows, learning rate, and one more that the plan chooses.
pub const RING_CHANNELS: usize = 4;

params!(
    /// Parameters of [`ADVANCE`]. [`Advance::new`] fills in a schedule.
    Advance {
        /// Rows of a full batch.
        batch: u32,
        /// 1: the cursor counts steps of a text stream; 0: it counts samples.
        stream: u32,
        /// Steps the ring holds.
        capacity: u32,
        /// [`Decay`] as a number: constant, cosine, step, exponential, linear.
        kind: u32,
        /// [`Schedule::base`].
        base_rate: f32,
        /// [`Schedule::warmup`].
        warmup: u32,
        /// Step at which a cosine or a line reaches the floor.
        total: u32,
        /// ln gamma of a step or exponential decay.
        log_gamma: f32,
        /// Steps a period of a step decay.
        period: u32,
        /// Lowest rate of a cosine or a line.
        floor: f32,
    }
);

impl Advance {
    /// Parameters for a schedule.
    pub fn new(batch: u32, stream: bool, capacity: u32, schedule: &Schedule) -> Self {
        // ln 0 is infinite, and 0 · ∞ no number: this is as good and finite.
        let log = |gamma: f64| gamma.ln().max(-1e30) as f32;
        let p = Self {
            batch,
            stream: stream.into(),
            capacity,
            base_rate: schedule.base as f32,
            warmup: schedule.warmup,
            ..Self::default()
        };
        match schedule.decay {
            Decay::Constant => p,
            Decay::Cosine { total, floor } => Self { kind: 1, total, floor: floor as f32, ..p },
            Decay::Step { gamma, period } => Self { kind: 2, log_gamma: log(gamma), period, ..p },
            Decay::Exponential { gamma } => Self { kind: 3, log_gamma: log(gamma), ..p },
            Decay::Linear { total, floor } => Self { kind: 4, total, floor: floor as f32, ..p },
        }
    }

    /// The schedule in these parameters.
    pub fn schedule(&self) -> Schedule {
        let gamma = f64::from(self.log_gamma).exp();
        let (total, floor) = (self.total, f64::from(self.floor));
        Schedule {
            base: self.base_rate.into(),
            warmup: self.warmup,
            decay: match self.kind {
                1 => Decay::Cosine { total, floor },
                2 => Decay::Step { gamma, period: self.period },
                3 => Decay::Exponential { gamma },
                4 => Decay::Linear { total, floor },
                _ => Decay::Constant,
            },
        }
    }
}

/// After a training step: loss, rows, learning rate and `extra` go to the ring's slot
/// step mod capacity, then step, cursor, epoch, rows, rate and the active flag move on.
/// Inactive replicas rest. Shapes: `state` `[R, 64]`, `loss`, `extra` `[R]`, `ring`
/// `[R, capacity, 4]`.
pub fn advance<F: Real>(
    p: &Advance,
    replicas: usize,
    state: &mut [u32],
    loss: &[F],
    extra: &[F],
    ring: &mut [F],
) {
    let schedule = p.schedule();
    for r in 0..replicas {
        let record = &mut state[r * WORDS..(r + 1) * WORDS];
        if record[ACTIVE] == 0 {
            continue;
        }
        let slot = (r * p.capacity as usize + (record[STEP] % p.capacity) as usize) * RING_CHANNELS;
        ring[slot] = loss[r];
        ring[slot + 1] = F::of(record[ROWS] as f32);
        ring[slot + 2] = F::of(f32::from_bits(record[RATE]));
        ring[slot + 3] = extra[r];

        record[CURSOR] += if p.stream != 0 { 1 } else { p.batch };
        if record[CURSOR] >= record[COUNT] {
            record[CURSOR] = 0;
            record[EPOCH] = record[EPOCH].wrapping_add(1);
        }
        record[ROWS] =
            if p.stream != 0 { p.batch } else { p.batch.min(record[COUNT] - record[CURSOR]) };
        record[STEP] += 1;
        record[ACTIVE] = u32::from(record[STEP] < record[LIMIT]);
        let scale = f32::from_bits(record[SCALE]);
        record[RATE] = (scale * schedule.rate(record[STEP]) as f32).to_bits();
    }
}

params!(
    /// Parameters of [`CHECK`].
    Check {
        /// 1: the gradient's norm is known, and has to be finite; 0: the loss alone counts.
        clipped: u32,
        /// The factor of a replica that has none yet, where the loss is scaled: a norm that isn't finite
        /// skips the step while the factor is above 1. 0: the loss is as it is.
        initial: f32,
    }
);

/// Before the update of a training step: a replica whose loss is not a number, or whose gradient's
/// norm is not finite, fails and rests, so that its parameters stay; or it rests for this step alone, if
/// that may be the loss's factor. Shapes: `state` `[R, 64]`, `loss`, `norm` `[R]`.
pub fn check<F: Real>(p: &Check, replicas: usize, state: &mut [u32], loss: &[F], norm: &[F]) {
    for r in 0..replicas {
        let record = &mut state[r * WORDS..(r + 1) * WORDS];
        let infinite = p.clipped != 0 && !norm[r].f32().is_finite();
        if record[ACTIVE] == 0 || !(loss[r].is_nan() || infinite) {
            continue;
        }
        let skips = p.initial != 0.0 && !loss[r].is_nan() && factor(record, p.initial) > 1.0;
        record[ACTIVE] = 0;
        record[if skips { SKIPS } else { FAILED }] = 1;
    }
}

params!(
    /// Parameters of [`LOSS_SCALES`].
    LossScales {
        /// The factor of a replica that has none yet.
        initial: f32,
    }
);

/// The factor on a replica's loss.
fn factor(record: &[u32], initial: f32) -> f32 {
    match record[LOSS_SCALE] {
        0 => initial,
        bits => f32::from_bits(bits),
    }
}

/// out = the factor on each replica's loss in this step. Shapes: `state` `[R, 64]`, `out` `[R]`.
pub fn loss_scales<F: Real>(p: &LossScales, replicas: usize, state: &[u32], out: &mut [F]) {
    for r in 0..replicas {
        out[r] = F::of(factor(&state[r * WORDS..], p.initial));
    }
}

params!(
    /// Parameters of [`RESCALE`].
    Rescale {
        /// The factor of a replica that has none yet.
        initial: f32,
        /// Factor on the loss's factor after `interval` updates in a row.
        growth: f32,
        /// Factor on it after a step that was skipped.
        backoff: f32,
        /// Updates in a row.
        interval: u32,
    }
);

/// At the end of a step with a scaled loss, before [`advance`]: the factor shrinks after a step that was
/// skipped, down to 1, and grows after many that were not, while it is finite. Shapes: `state` `[R, 64]`.
pub fn rescale(p: &Rescale, replicas: usize, state: &mut [u32]) {
    for r in 0..replicas {
        let record = &mut state[r * WORDS..(r + 1) * WORDS];
        let scale = factor(record, p.initial);
        let mut changed = scale;
        if record[SKIPS] != 0 {
            record[SKIPS] = 0;
            record[SKIPPED] += 1;
            record[ACTIVE] = 1;
            record[STEADY] = 0;
            changed = (scale * p.backoff).max(1.0);
        } else if record[ACTIVE] != 0 {
            record[STEADY] += 1;
            if record[STEADY] >= p.interval {
                record[STEADY] = 0;
                changed = scale * p.growth;
            }
        } else {
            continue;
        }
        record[LOSS_SCALE] = if changed.is_finite() { changed } else { scale }.to_bits();
    }
}

kernel! {
    /// The factors on the replicas' losses.
    LOSS_SCALES = "state/loss_scales", LossScales;
    bindings: [state: read u32, out: write f32];
    reference: loss_scales;
    variants: [{
        name: "plain",
        source: "state/loss_scales.wgsl",
        preludes: [STATE],
        consts: [],
        grid: |_, _| [1, 1],
    }];
}

kernel! {
    /// Changes the factor on the loss after a step.
    RESCALE = "state/rescale", Rescale;
    bindings: [state: write u32];
    reference: rescale;
    variants: [{
        name: "plain",
        source: "state/rescale.wgsl",
        preludes: [STATE],
        consts: [],
        grid: |_, _| [1, 1],
    }];
}

kernel! {
    /// Lets a replica rest before an update that would destroy its model.
    CHECK = "state/check", Check;
    bindings: [state: write u32, loss: read f32, norm: read f32];
    reference: check;
    variants: [{
        name: "plain",
        source: "state/check.wgsl",
        preludes: [STATE],
        consts: [],
        grid: |_, _| [1, 1],
    }];
}

kernel! {
    /// Ends a training step: logs its loss and moves the state record on.
    ADVANCE = "state/advance", Advance;
    bindings: [state: write u32, loss: read f32, extra: read f32, ring: write f32];
    reference: advance;
    variants: [{
        name: "plain",
        source: "state/advance.wgsl",
        preludes: [STATE],
        consts: [],
        grid: |_, _| [1, 1],
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[ADVANCE.any(), CHECK.any(), LOSS_SCALES.any(), RESCALE.any()];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{SEED, StateRecord};

    fn run(p: &Advance, state: &mut [u32], loss: f32, ring: &mut [f32]) {
        advance(p, 1, state, &[loss], &[10.0 * loss], ring);
    }

    #[test]
    fn epochs_of_a_short_last_batch_and_the_limit() {
        let schedule = Schedule { base: 0.5, warmup: 4, decay: Decay::Constant };
        let p = Advance::new(4, false, 3, &schedule);
        let mut state = StateRecord::new(9, 100..110, 4, 5, &schedule);
        let mut ring = [0.0f32; 12];
        let mut seen = Vec::new();
        for step in 0..7 {
            seen.push((state[EPOCH], state[CURSOR], state[ROWS], state[ACTIVE]));
            run(&p, &mut *state, step as f32, &mut ring);
        }
        let expected = [
            (0, 0, 4, 1),
            (0, 4, 4, 1),
            (0, 8, 2, 1),
            (1, 0, 4, 1),
            (1, 4, 4, 1),
            (1, 8, 2, 0),
            (1, 8, 2, 0),
        ];
        assert_eq!(seen, expected);
        assert_eq!((state[STEP], state[SEED]), (5, 9));
        // Steps 3, 4 and 2 are the last in slots 0, 1 and 2.
        let expected = [3.0, 4.0, 0.5, 30.0, 4.0, 4.0, 0.5, 40.0, 2.0, 2.0, 0.375, 20.0f32];
        assert_eq!(ring, expected);
    }

    #[test]
    fn what_is_not_a_number_lets_its_replica_rest() {
        let schedule = Schedule::constant(0.1);
        let inf = f32::INFINITY;
        let losses = [1.0, f32::NAN, inf, 1.0, 1.0];
        let norms = [1.0, 1.0, 1.0, inf, f32::NAN];
        for (clipped, failed) in [(0, [0, 1, 0, 0, 0]), (1, [0, 1, 0, 1, 1])] {
            let record = StateRecord::new(0, 0..8, 4, 9, &schedule);
            let mut state = StateRecord::words(&[record; 5]);
            check(&Check { clipped, initial: 0.0 }, 5, &mut state, &losses, &norms);
            let seen: Vec<_> = state.chunks(WORDS).map(|r| (r[FAILED], 1 - r[ACTIVE])).collect();
            assert_eq!(seen, failed.map(|f| (f, f)));
            // One that rests already doesn't fail.
            let mut resting = StateRecord::words(&[StateRecord::IDLE; 5]);
            check(&Check { clipped, initial: 2.0 }, 5, &mut resting, &losses, &norms);
            assert_eq!(resting, StateRecord::words(&[StateRecord::IDLE; 5]));
        }
    }

    #[test]
    fn a_scaled_loss_skips_steps_down_to_a_factor_of_one() {
        let schedule = Schedule::constant(0.1);
        let p = Rescale { initial: 2.0, growth: 2.0, backoff: 0.5, interval: 2 };
        let mut state = StateRecord::new(0, 0..8, 4, 9, &schedule);
        let mut factor = [0.0f32];
        loss_scales(&LossScales { initial: 2.0 }, 1, &*state, &mut factor);
        assert_eq!((factor, state.loss_scale()), ([2.0], None));
        let mut seen = Vec::new();
        let inf = f32::INFINITY;
        for norm in [1.0, 1.0, 1.0, inf, f32::NAN, 1.0, inf] {
            check(&Check { clipped: 1, initial: 2.0 }, 1, &mut *state, &[0.5], &[norm]);
            rescale(&p, 1, &mut *state);
            let scale = f32::from_bits(state[LOSS_SCALE]);
            seen.push((scale, state.skipped(), state[STEADY], state.has_failed()));
            state[STEP] += 1;
        }
        let expected = [
            (2.0, 0, 1, false),
            (4.0, 0, 0, false),
            (4.0, 0, 1, false),
            (2.0, 1, 0, false),
            (1.0, 2, 0, false),
            (1.0, 2, 1, false),
            // Nothing is left to be taken off.
            (1.0, 2, 1, true),
        ];
        assert_eq!(seen, expected);
        assert_eq!(crate::state::updates(&*state), 5);
        // A loss that is no number isn't healed by another factor, and the largest factor stays.
        let mut state = StateRecord::new(0, 0..8, 4, 9, &schedule);
        state[LOSS_SCALE] = f32::MAX.to_bits();
        loss_scales(&LossScales { initial: 2.0 }, 1, &*state, &mut factor);
        assert_eq!(factor, [f32::MAX]);
        rescale(&Rescale { interval: 1, ..p }, 1, &mut *state);
        assert_eq!((state[LOSS_SCALE], state[STEADY]), (f32::MAX.to_bits(), 0));
        check(&Check { clipped: 1, initial: 2.0 }, 1, &mut *state, &[f32::NAN], &[inf]);
        assert!(state.has_failed());
    }

    #[test]
    fn a_stream_counts_steps_with_full_batches() {
        let schedule = Schedule::constant(0.1);
        let p = Advance::new(8, true, 2, &schedule);
        let mut state = StateRecord::stream(0, 0..3, 8, 100, &schedule);
        let mut ring = [0.0f32; 8];
        for _ in 0..4 {
            run(&p, &mut *state, 1.0, &mut ring);
        }
        assert_eq!((state[EPOCH], state[CURSOR], state[ROWS]), (1, 1, 8));
    }

    #[test]
    fn a_schedule_survives_the_parameters() {
        for decay in [
            Decay::Constant,
            Decay::Cosine { total: 1000, floor: 0.125 },
            Decay::Step { gamma: 0.0, period: 7 },
            Decay::Step { gamma: 0.9, period: 7 },
            Decay::Exponential { gamma: 0.999 },
            Decay::Linear { total: 500, floor: 0.0 },
        ] {
            let schedule = Schedule { base: 0.5, warmup: 20, decay };
            let restored = Advance::new(1, false, 1, &schedule).schedule();
            for step in [0, 19, 20, 26, 27, 100, 499, 1000, 5000] {
                let (a, b) = (schedule.rate(step), restored.rate(step));
                assert!((a - b).abs() <= 1e-5 * a + 1e-12, "{decay:?} at {step}: {a} and {b}");
            }
        }
    }

    #[test]
    fn a_replica_without_samples_or_steps_never_starts() {
        let schedule = Schedule::constant(0.1);
        assert_eq!(StateRecord::new(0, 0..0, 4, 10, &schedule)[ACTIVE], 0);
        assert_eq!(StateRecord::new(0, 0..10, 4, 0, &schedule)[ACTIVE], 0);
        assert_eq!(StateRecord::new(0, 0..3, 4, 1, &schedule)[ROWS], 3);
    }
}
