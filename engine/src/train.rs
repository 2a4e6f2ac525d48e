//! How plans train: optimizers, groups of parameters, and what else there is to choose.

mod groups;
mod parts;
mod scale;
mod step;

pub use groups::{Names, ParameterGroup};
pub use scale::LossScale;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tern_shaders::schedule::{Decay, Schedule};

use crate::{Error, Flat, Result, Trainable};

/// How gradients change parameters. Semantics and defaults are those of `torch.optim`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Share of the last step's direction that is kept; 0 needs no moment.
        momentum: f64,
        /// Share of the gradient that doesn't go into the direction, from the second step on.
        #[serde(default)]
        dampening: f64,
        /// Looks ahead along the momentum; without dampening only.
        nesterov: bool,
        /// L2 decay, added to the gradient.
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba 2015).
    Adam {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squares.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
        /// L2 decay, added to the gradient.
        weight_decay: f64,
        /// By the largest second moment so far (Reddi et al. 2018).
        #[serde(default)]
        amsgrad: bool,
    },
    /// AdamW (Loshchilov and Hutter 2019): decay apart from the gradient.
    AdamW {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squares.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
        /// Decoupled decay.
        weight_decay: f64,
        /// By the largest second moment so far (Reddi et al. 2018).
        #[serde(default)]
        amsgrad: bool,
    },
}

/// An option in a range that ends before its end.
fn within(name: &str, value: f64, range: Range<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = match range.end.is_finite() {
        true => format!("from {} to below {}", range.start, range.end),
        false => format!("a finite number from {} on", range.start),
    };
    Err(Error::value(name, value, expected))
}

impl Optimizer {
    /// Plain gradient descent.
    pub fn sgd() -> Self {
        Optimizer::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }

    /// Adam with β 0.9 and 0.999, ε 1e-8.
    pub fn adam() -> Self {
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        Optimizer::Adam { beta1, beta2, epsilon, weight_decay: 0.0, amsgrad: false }
    }

    /// AdamW with β 0.9 and 0.999, ε 1e-8, decay 0.01.
    pub fn adamw() -> Self {
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        Optimizer::AdamW { beta1, beta2, epsilon, weight_decay: 0.01, amsgrad: false }
    }

    fn check(&self) -> Result<()> {
        match *self {
            Optimizer::Sgd { momentum, dampening, nesterov, weight_decay } => {
                within("momentum", momentum, 0.0..1.0)?;
                within("dampening", dampening, 0.0..f64::INFINITY)?;
                if nesterov && dampening != 0.0 {
                    return Err(Error::value("dampening with nesterov", dampening, "0"));
                }
                within("weight decay", weight_decay, 0.0..f64::INFINITY)
            }
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay, .. }
            | Optimizer::AdamW { beta1, beta2, epsilon, weight_decay, .. } => {
                within("beta1", beta1, 0.0..1.0)?;
                within("beta2", beta2, 0.0..1.0)?;
                within("epsilon", epsilon, 0.0..f64::INFINITY)?;
                within("weight decay", weight_decay, 0.0..f64::INFINITY)
            }
        }
    }

    /// The same with another weight decay.
    fn decaying(mut self, decay: f64) -> Self {
        match &mut self {
            Optimizer::Sgd { weight_decay, .. }
            | Optimizer::Adam { weight_decay, .. }
            | Optimizer::AdamW { weight_decay, .. } => *weight_decay = decay,
        }
        self
    }

    /// The moments it keeps.
    pub fn moments(&self) -> &'static [Flat] {
        match self {
            Optimizer::Sgd { momentum: 0.0, .. } => &[],
            Optimizer::Sgd { .. } => &[Flat::Moment1],
            Optimizer::Adam { amsgrad: true, .. } | Optimizer::AdamW { amsgrad: true, .. } => {
                &[Flat::Moment1, Flat::Moment2, Flat::LargestMoment2]
            }
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } => &[Flat::Moment1, Flat::Moment2],
        }
    }
}

/// How a plan trains.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Training {
    /// How gradients change parameters.
    pub optimizer: Optimizer,
    /// Learning rate by step.
    pub schedule: Schedule,
    /// Which parameters change.
    pub trainable: Trainable,
    /// Gradients are scaled down to this global norm.
    pub clip_norm: Option<f64>,
    /// Strength μ of FedProx's pull to [`Flat::Reference`].
    pub proximal: Option<f64>,
    /// Seed of shuffling and dropout; replica r uses `seed + r`.
    pub seed: u32,
    /// Steps after which a replica rests.
    pub limit: Option<u32>,
    /// Parameters that train otherwise than the rest; each is in the first group that names it.
    pub groups: Vec<ParameterGroup>,
    /// Decay of a moving average of the parameters, which is kept in [`Flat::Average`]:
    /// decay · average + (1 − decay) · parameters after each step, the parameters after the first.
    pub average: Option<f64>,
    /// A factor on the loss in the backward pass, for gradients of 16 bits.
    pub loss_scale: Option<LossScale>,
}

impl Training {
    /// All parameters, a constant rate, no clipping.
    pub fn new(optimizer: Optimizer, rate: f64) -> Self {
        Training {
            optimizer,
            schedule: Schedule::constant(rate),
            trainable: Trainable::All,
            clip_norm: None,
            proximal: None,
            seed: 0,
            limit: None,
            groups: Vec::new(),
            average: None,
            loss_scale: None,
        }
    }

    fn check(&self) -> Result<()> {
        const ALL: Range<f64> = 0.0..f64::INFINITY;
        self.optimizer.check()?;
        within("learning rate", self.schedule.base, ALL)?;
        match self.schedule.decay {
            Decay::Constant => {}
            Decay::Cosine { floor, .. } | Decay::Linear { floor, .. } => {
                within("floor of the learning rate", floor, ALL)?;
            }
            Decay::Step { gamma, .. } | Decay::Exponential { gamma } => {
                within("gamma of the learning rate", gamma, ALL)?;
            }
        }
        if let Some(mu) = self.proximal {
            within("proximal", mu, ALL)?;
        }
        if let Some(decay) = self.average {
            within("decay of the average", decay, 0.0..1.0)?;
        }
        self.loss_scale.map_or(Ok(()), |scale| scale.check())?;
        self.groups.iter().try_for_each(ParameterGroup::check)?;
        match self.clip_norm {
            Some(norm) if norm.is_nan() || norm <= 0.0 => {
                Err(Error::value("clip_norm", norm, "more than 0"))
            }
            _ => Ok(()),
        }
    }

    /// With a learning rate by step.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// With some parameters that change.
    pub fn trainable(mut self, trainable: Trainable) -> Self {
        self.trainable = trainable;
        self
    }

    /// With gradients scaled down to a global norm, or not.
    pub fn clip_norm(mut self, clip_norm: impl Into<Option<f64>>) -> Self {
        self.clip_norm = clip_norm.into();
        self
    }

    /// With FedProx's pull to [`Flat::Reference`], or without.
    pub fn proximal(mut self, proximal: impl Into<Option<f64>>) -> Self {
        self.proximal = proximal.into();
        self
    }

    /// With a seed of shuffling and dropout.
    pub fn seed(mut self, seed: u32) -> Self {
        self.seed = seed;
        self
    }

    /// With steps after which a replica rests, or without end.
    pub fn limit(mut self, limit: impl Into<Option<u32>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// With parameters that train otherwise than the rest, if no group before names them.
    pub fn group(mut self, group: ParameterGroup) -> Self {
        self.groups.push(group);
        self
    }

    /// With a moving average of the parameters of this decay, or without.
    pub fn average(mut self, decay: impl Into<Option<f64>>) -> Self {
        self.average = decay.into();
        self
    }

    /// With a factor on the loss in the backward pass, or without.
    pub fn loss_scale(mut self, scale: impl Into<Option<LossScale>>) -> Self {
        self.loss_scale = scale.into();
        self
    }
}
