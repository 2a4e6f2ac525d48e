//! What the aggregator does with the mean of the nodes' changes.

use std::ops::Range;

use tern_protocol::{Strategy, StrategyState};

use super::{Group, Model, Phase, Settings};

/// Decay of the mean of directions, as in adversarial training since DCGAN (Radford et al. 2016).
const BETA1: f32 = 0.5;
/// Decay of the mean of their squares.
const BETA2: f32 = 0.999;
/// Added to the root of the second moment.
const EPSILON: f32 = 1e-8;

/// The strategy `align`. Warming up is averaged as it is. After that the mean change of the
/// parameters that a round trains is the direction of an Adam step; all others stay as they
/// are, and so do their moments.
#[derive(Clone, Debug)]
pub struct Fusion {
    settings: Settings,
    /// G and T.
    learned: Range<usize>,
    discriminator: Range<usize>,
}

impl Fusion {
    /// Its name in a plan.
    pub const NAME: &'static str = "align";

    /// For a model and what its nodes agreed on.
    pub fn new(model: &Model, settings: &Settings) -> Self {
        let learned = model.range(Group::Extractor).start..model.range(Group::Task).end;
        let discriminator = model.range(Group::Discriminator);
        Fusion { settings: settings.clone(), learned, discriminator }
    }

    /// What a round is for.
    pub fn phase(&self, round: u32) -> Phase {
        self.settings.phase(round)
    }
}

impl Strategy for Fusion {
    fn name(&self) -> &str {
        Fusion::NAME
    }

    fn step(&self, model: &mut [f32], direction: &[f32], state: &mut StrategyState) {
        state.steps += 1;
        state.vectors.resize_with(2, || vec![0.0; model.len()]);
        let round = state.steps;
        let (range, rate) = match self.settings.phase(round) {
            Phase::WarmUp => {
                model.iter_mut().zip(direction).for_each(|(x, d)| *x += d);
                return;
            }
            Phase::Discriminate => (&self.discriminator, self.settings.discriminator_rate),
            Phase::Adapt => (&self.learned, self.settings.rate),
        };
        let [mean, square] = state.vectors.as_mut_slice() else { return };
        let count = self.settings.count(round).min(100_000) as i32;
        let [left1, left2] = [BETA1, BETA2].map(|beta| 1.0 - beta.powi(count));
        let (rate, scale) = (rate as f32, 1.0 / self.settings.local_rate as f32);
        for i in range.clone() {
            // About the gradient, negated, summed over the steps.
            let d = direction[i] * scale;
            mean[i] = BETA1 * mean[i] + (1.0 - BETA1) * d;
            square[i] = BETA2 * square[i] + (1.0 - BETA2) * d * d;
            model[i] += rate * (mean[i] / left1) / ((square[i] / left2).sqrt() + EPSILON);
        }
    }
}
