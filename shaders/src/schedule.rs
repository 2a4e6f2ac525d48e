//! Learning-rate schedules.
//!
//! ```rust
//! use tern_shaders::schedule::{Decay, Schedule};
//!
//! // Up to 0.5 in ten steps, then down to 0.1 in a hundred.
//! let decay = Decay::Linear { total: 110, floor: 0.1 };
//! let schedule = Schedule { base: 0.5, warmup: 10, decay };
//! assert_eq!((schedule.rate(0), schedule.rate(9)), (0.05, 0.5));
//! assert!((schedule.rate(60) - 0.3).abs() < 1e-12);
//! assert!((schedule.rate(500) - 0.1).abs() < 1e-12);
//! ```

/// How the learning rate goes on after the warmup; t counts steps from its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// The base rate.
    Constant,
    /// Half a cosine from the base rate to `floor` at step `total`, and `floor` after it
    /// (Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts).
    Cosine {
        /// Step, warmup included, at which the floor is reached.
        total: u32,
        /// Lowest rate.
        floor: f64,
    },
    /// base · gamma^⌊t / period⌋
    Step {
        /// Factor each period.
        gamma: f64,
        /// Steps a period.
        period: u32,
    },
    /// base · gamma^t
    Exponential {
        /// Factor each step.
        gamma: f64,
    },
    /// A straight line from the base rate to `floor` at step `total`, and `floor` after it.
    Linear {
        /// Step, warmup included, at which the floor is reached.
        total: u32,
        /// Lowest rate.
        floor: f64,
    },
}

/// The learning rate as a function of the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Rate at the end of the warmup.
    pub base: f64,
    /// Steps over which the rate rises linearly to `base`; 0: none.
    pub warmup: u32,
    /// What follows.
    pub decay: Decay,
}

impl Schedule {
    /// The same rate at every step.
    pub fn constant(base: f64) -> Self {
        Self { base, warmup: 0, decay: Decay::Constant }
    }

    /// The learning rate of a step, counted from 0.
    pub fn rate(&self, step: u32) -> f64 {
        if step < self.warmup {
            return self.base * (f64::from(step) + 1.0) / f64::from(self.warmup);
        }
        let t = step - self.warmup;
        let progress = |total: u32| {
            let span = total.saturating_sub(self.warmup).max(1);
            (f64::from(t) / f64::from(span)).min(1.0)
        };
        match self.decay {
            Decay::Constant => self.base,
            Decay::Cosine { total, floor } => {
                let half = (progress(total) * std::f64::consts::FRAC_PI_2).cos();
                floor + (self.base - floor) * half * half
            }
            Decay::Step { gamma, period } => self.base * gamma.powf(f64::from(t / period.max(1))),
            Decay::Exponential { gamma } => self.base * gamma.powf(f64::from(t)),
            Decay::Linear { total, floor } => self.base + (floor - self.base) * progress(total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay) -> Schedule {
        Schedule { base: 0.5, warmup: 10, decay }
    }

    #[test]
    fn warmup_rises_to_the_base_rate_and_meets_the_decay_there() {
        for decay in [
            Decay::Constant,
            Decay::Cosine { total: 110, floor: 0.1 },
            Decay::Step { gamma: 0.5, period: 20 },
            Decay::Exponential { gamma: 0.9 },
            Decay::Linear { total: 110, floor: 0.1 },
        ] {
            let s = schedule(decay);
            assert!((s.rate(0) - 0.05).abs() < 1e-15);
            assert_eq!(s.rate(9), 0.5);
            assert_eq!(s.rate(10), 0.5);
        }
    }

    #[test]
    fn decays_pass_through_known_points() {
        let at = |decay, step, expected: f64| {
            let rate = schedule(decay).rate(step);
            assert!((rate - expected).abs() < 1e-12, "{decay:?} at {step}: {rate}");
        };
        at(Decay::Constant, 1_000_000, 0.5);
        at(Decay::Cosine { total: 110, floor: 0.1 }, 60, 0.3);
        at(Decay::Cosine { total: 110, floor: 0.1 }, 110, 0.1);
        at(Decay::Cosine { total: 110, floor: 0.1 }, 500, 0.1);
        at(Decay::Linear { total: 110, floor: 0.1 }, 35, 0.4);
        at(Decay::Linear { total: 110, floor: 0.1 }, 999, 0.1);
        at(Decay::Step { gamma: 0.5, period: 20 }, 29, 0.5);
        at(Decay::Step { gamma: 0.5, period: 20 }, 30, 0.25);
        at(Decay::Step { gamma: 0.5, period: 20 }, 70, 0.0625);
        at(Decay::Exponential { gamma: 0.9 }, 12, 0.405);
    }

    #[test]
    fn a_total_within_the_warmup_goes_to_the_floor_at_once() {
        let s = schedule(Decay::Linear { total: 3, floor: 0.1 });
        assert_eq!(s.rate(10), 0.5);
        assert!((s.rate(11) - 0.1).abs() < 1e-15);
    }
}
