//! What nodes and aggregator agree on, and which phase a round is.

use serde::{Deserialize, Serialize};

use tern_protocol::{Error, Result};

/// Most rounds of a run.
const MAX_ROUNDS: u32 = 1_000_000_000;

/// What a round is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Sources train G and T (4.1).
    WarmUp,
    /// All train D (4.3).
    Discriminate,
    /// D is fixed; G and T are trained against it (4.5).
    Adapt,
}

/// What features are trained for, against a fixed discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// To be taken for the other domain's: inverted labels (ADDA).
    #[default]
    Invert,
    /// To be told apart as badly as possible: gradient reversal (DANN).
    Reverse,
}

/// Whose task model the target ends up with (4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskModel {
    /// The aggregate of the sources'.
    #[default]
    Sources,
    /// The aggregate of the sources' and the target's, which trains it where it has labels.
    WithTarget,
}

/// How nodes train, and what the aggregator makes of it. All nodes of a run and its aggregator
/// have the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Samples of a batch.
    pub batch: u32,
    /// Rounds of warming up.
    pub warm_ups: u32,
    /// Steps of a source in each of them, by Adam whose moments start anew.
    pub warm_up_steps: u32,
    /// Learning rate of these.
    pub warm_up_rate: f64,
    /// Rounds that train D before the first that trains against it.
    pub head_start: u32,
    /// Exchanges after that, each a round that trains D and one that trains against it.
    pub exchanges: u32,
    /// Steps of a node in a round that trains D.
    pub discriminator_steps: u32,
    /// Steps of a node in a round that trains against it.
    pub adapt_steps: u32,
    /// Learning rate of these steps, which are plain gradient descent.
    pub local_rate: f64,
    /// Learning rate of the aggregator's Adam for G and T.
    pub rate: f64,
    /// Learning rate of the aggregator's Adam for D.
    pub discriminator_rate: f64,
    /// Weight of the adversarial loss beside the task's. It grows from 0 as in DANN. With 0
    /// there is no discriminator and no adaptation.
    pub strength: f64,
    /// What features are trained for.
    pub objective: Objective,
    /// Whose task model the target ends up with.
    pub task: TaskModel,
    /// Rounds without a smaller loss after which the run ends (4.6). Clients of a server then get
    /// the model with the smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Seed of the first model and of the nodes' training.
    pub seed: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            batch: 64,
            warm_ups: 4,
            warm_up_steps: 200,
            warm_up_rate: 1e-3,
            head_start: 50,
            exchanges: 1000,
            discriminator_steps: 1,
            adapt_steps: 1,
            local_rate: 0.05,
            rate: 1e-3,
            discriminator_rate: 1e-3,
            strength: 0.1,
            objective: Objective::Invert,
            task: TaskModel::Sources,
            patience: None,
            seed: 1,
        }
    }
}

impl Settings {
    /// Whether features are aligned at all.
    pub fn aligns(&self) -> bool {
        self.strength > 0.0
    }

    /// Rounds if nothing ends the run before.
    pub fn rounds(&self) -> u32 {
        u32::try_from(self.count_rounds()).unwrap_or(u32::MAX)
    }

    fn count_rounds(&self) -> u64 {
        let [warm_ups, head_start, exchanges] =
            [self.warm_ups, self.head_start, self.exchanges].map(u64::from);
        match self.aligns() {
            true => warm_ups + head_start + 2 * exchanges,
            false => warm_ups + exchanges,
        }
    }

    /// What a round, counted from 1, is for.
    pub fn phase(&self, round: u32) -> Phase {
        if round <= self.warm_ups {
            return Phase::WarmUp;
        }
        if !self.aligns() {
            return Phase::Adapt;
        }
        match (round - self.warm_ups).checked_sub(self.head_start) {
            Some(after @ 1..) if after % 2 == 0 => Phase::Adapt,
            _ => Phase::Discriminate,
        }
    }

    /// How many rounds of its phase there were, this one included.
    pub fn count(&self, round: u32) -> u32 {
        let after = round.saturating_sub(self.warm_ups);
        match (self.phase(round), self.aligns()) {
            (Phase::WarmUp, _) => round,
            (Phase::Adapt, false) => after,
            (Phase::Adapt, true) => (after - self.head_start) / 2,
            (Phase::Discriminate, _) if after <= self.head_start => after,
            (Phase::Discriminate, _) => self.head_start + (after - self.head_start).div_ceil(2),
        }
    }

    /// Weight of the adversarial loss in a round: DANN's 2 / (1 + exp(−10 p)) − 1 of the
    /// strength, p from 0 to 1 (Ganin et al. 2016, section 5.2.2).
    pub fn strength_in(&self, round: u32) -> f32 {
        if self.phase(round) != Phase::Adapt || !self.aligns() {
            return 0.0;
        }
        let p = f64::from(self.count(round) - 1) / f64::from(self.exchanges.max(1));
        (self.strength * (2.0 / (1.0 + (-10.0 * p).exp()) - 1.0)) as f32
    }

    /// Steps of a node in a round of this phase.
    pub fn steps(&self, phase: Phase) -> u32 {
        match phase {
            Phase::WarmUp => self.warm_up_steps,
            Phase::Discriminate => self.discriminator_steps,
            Phase::Adapt => self.adapt_steps,
        }
    }

    /// Whether they make sense.
    ///
    /// # Errors
    /// [`Error::Value`] for the first that doesn't.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [
            ("align.batch", self.batch),
            ("align.warm_up_steps", self.warm_up_steps),
            ("align.discriminator_steps", self.discriminator_steps),
            ("align.adapt_steps", self.adapt_steps),
            ("rounds of align", self.rounds()),
            ("align.patience", self.patience.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::value(name, value, "1 or more"));
            }
        }
        if self.count_rounds() > u64::from(MAX_ROUNDS) {
            let expected = format!("at most {MAX_ROUNDS}");
            return Err(Error::value("rounds of align", self.count_rounds(), expected));
        }
        for (name, value) in [
            ("align.warm_up_rate", self.warm_up_rate),
            ("align.local_rate", self.local_rate),
            ("align.rate", self.rate),
            ("align.discriminator_rate", self.discriminator_rate),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::value(name, value, "a number above 0"));
            }
        }
        if !(self.strength >= 0.0 && self.strength.is_finite()) {
            return Err(Error::value("align.strength", self.strength, "0 or a number above it"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_take_turns_and_count_their_kind() {
        use Phase::{Adapt, Discriminate, WarmUp};
        let settings = Settings { warm_ups: 1, head_start: 2, exchanges: 2, ..Settings::default() };
        let rounds: Vec<_> =
            (1..=settings.rounds()).map(|r| (settings.phase(r), settings.count(r))).collect();
        let expected = [
            (WarmUp, 1),
            (Discriminate, 1),
            (Discriminate, 2),
            (Discriminate, 3),
            (Adapt, 1),
            (Discriminate, 4),
            (Adapt, 2),
        ];
        assert_eq!(rounds, expected);
        let alone = Settings { strength: 0.0, ..settings };
        let rounds: Vec<_> =
            (1..=alone.rounds()).map(|r| (alone.phase(r), alone.count(r))).collect();
        assert_eq!(rounds, [(WarmUp, 1), (Adapt, 1), (Adapt, 2)]);
    }

    #[test]
    fn the_adversarial_loss_grows_from_nothing_to_its_strength() {
        let settings = Settings { strength: 0.5, ..Settings::default() };
        let by_round: Vec<f32> = (1..=settings.rounds()).map(|r| settings.strength_in(r)).collect();
        let adapt: Vec<f32> = (1..=settings.rounds())
            .filter(|r| settings.phase(*r) == Phase::Adapt)
            .map(|r| settings.strength_in(r))
            .collect();
        assert_eq!(adapt[0], 0.0);
        assert!(adapt.windows(2).all(|pair| pair[0] < pair[1] || pair[1] > 0.499));
        assert!((adapt[adapt.len() - 1] - 0.5).abs() < 1e-3);
        assert_eq!(by_round.iter().filter(|s| **s > 0.0).count(), adapt.len() - 1);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let check = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(check(|s| s.batch = 0).contains("align.batch is 0"));
        assert!(check(|s| s.exchanges = 1 << 31).contains("rounds of align is 4294967350"));
        assert!(check(|s| s.rate = f64::NAN).contains("align.rate is NaN"));
        assert!(check(|s| s.strength = -1.0).contains("align.strength is -1"));
        Settings::default().check().unwrap();
    }
}
