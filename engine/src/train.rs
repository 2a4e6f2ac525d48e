//! Training plans: gradients, clipping, the optimizer and the state record's advance.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tern_shaders::Element;
use tern_shaders::kernels::optimizer::{
    ADAM, AMSGRAD, Adam, NORM_FINISH, NORM_PARTIAL, NormFinish, NormPartial, PROXIMAL, Proximal,
    SGD, SGD_PLAIN, Sgd, SgdPlain, norm_partials,
};
use tern_shaders::kernels::state::{ADVANCE, Advance, CHECK, Check};
use tern_shaders::schedule::{Decay, Schedule};
use tern_shaders::state::StateRecord;

use crate::backward::drain;
use crate::graph::{Graph, Tensor};
use crate::plan::RING_STEPS;
use crate::{Error, Flat, Operand, Plan, Result, Trainable};

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
}

/// A parameter struct of an optimizer, still to be given its range.
enum Update {
    Plain(SgdPlain),
    Momentum(Sgd),
    Adam(Adam),
    AmsGrad(Adam),
}

impl Graph {
    /// A training step: forward, the gradients of `loss`, clipping, the optimizer, and the
    /// advance of the state record.
    ///
    /// A replica whose loss is not a number, or whose gradient's norm is not finite where gradients
    /// are clipped, rests from then on with the parameters that it had before the step.
    /// [`Losses::failed`](crate::Losses::failed) has the step, and
    /// [`Plan::find_not_finite_async`](crate::Plan::find_not_finite_async) the tensor where it began.
    ///
    /// # Errors
    /// [`Error::Shape`] if the loss isn't one value; [`Error::Value`] for options out of
    /// range or a loss that no trained parameter reaches; as [`Graph::forward`].
    pub fn train(mut self, loss: Tensor, training: &Training) -> Result<Plan> {
        training.check()?;
        self.check_loss(loss)?;
        let boundary = self.boundary();
        let one = self.constant(1.0, &[1]);
        let trained = self.trained(&training.trainable);
        let drained = drain(&mut self, &[(loss, one)], trained, &[])?;
        let ranges = self.ranges(&drained.written);
        if ranges.is_empty() {
            let expected = "one that the loss depends on";
            return Err(Error::value("trained parameters", "none", expected));
        }
        if let Some(mu) = training.proximal {
            self.pull(&ranges, mu);
        }
        let (clip, norm) = match training.clip_norm {
            Some(max_norm) => self.clip(&ranges, max_norm),
            None => (one, self.constant(0.0, &[1])),
        };
        let checked = Check { clipped: training.clip_norm.is_some().into() };
        self.dispatch(&CHECK, &checked, &[Operand::State, loss.into(), norm.into()]);
        for range in &ranges {
            self.update(range, training, clip);
        }
        self.advance(loss, norm, &training.schedule);
        let records = self.records(&training.schedule, training.seed, training.limit);
        Plan::new(self, boundary, records, true)
    }

    /// A plan that computes forward over a data set batch by batch, with `loss` logged as in
    /// training and nothing changed but the tensors that the graph writes.
    ///
    /// # Errors
    /// As [`Graph::train`].
    pub fn evaluate(mut self, loss: Tensor) -> Result<Plan> {
        self.check_loss(loss)?;
        let schedule = Schedule::constant(0.0);
        let boundary = self.boundary();
        let nothing = self.constant(0.0, &[1]);
        self.advance(loss, nothing, &schedule);
        let records = self.records(&schedule, 0, None);
        Plan::new(self, boundary, records, true)
    }

    fn check_loss(&self, loss: Tensor) -> Result<()> {
        if self.len(loss) == 1 {
            return Ok(());
        }
        let what = format!("the loss has shape {:?}, expected one value", self.shape(loss));
        Err(Error::shape("train", what))
    }

    /// Words of the flat vector that hold the marked parameters, neighbors joined.
    fn ranges(&self, marked: &[bool]) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        let arena = self.arena.clone();
        for param in arena.parameters().iter().filter(|p| marked[p.index]) {
            let (start, end) = (param.offset as u32, (param.offset + param.padded()) as u32);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    fn pull(&mut self, ranges: &[Range<u32>], mu: f64) {
        let stride = self.parameter_stride() as u32;
        for range in ranges {
            let params = Proximal {
                offset: range.start,
                n: range.end - range.start,
                stride,
                reference_stride: stride,
                mu: mu as f32,
            };
            let flats = [Flat::Parameters, Flat::Reference, Flat::Gradients];
            self.dispatch(&PROXIMAL, &params, &flats.map(Operand::Flat));
        }
    }

    /// The factor that clips the gradient, and its norm.
    fn clip(&mut self, ranges: &[Range<u32>], max_norm: f64) -> (Tensor, Tensor) {
        let counts: Vec<usize> =
            ranges.iter().map(|r| norm_partials((r.end - r.start) as usize)).collect();
        let count: usize = counts.iter().sum();
        let partial = self.tensor("sums of squares", &[count], Element::F32);
        let norm = self.tensor("gradient norm", &[1], Element::F32);
        let clip = self.tensor("clip", &[1], Element::F32);
        let mut partial_offset = 0;
        for (range, chunks) in ranges.iter().zip(counts) {
            let params = NormPartial {
                offset: range.start,
                n: range.end - range.start,
                stride: self.parameter_stride() as u32,
                partial_offset,
                partial_stride: count as u32,
            };
            let args = [Operand::Flat(Flat::Gradients), partial.into()];
            self.dispatch(&NORM_PARTIAL, &params, &args);
            partial_offset += chunks as u32;
        }
        let params = NormFinish {
            count: count as u32,
            partial_stride: count as u32,
            max_norm: max_norm as f32,
            scale: 1.0,
        };
        self.dispatch(&NORM_FINISH, &params, &[partial.into(), norm.into(), clip.into()]);
        (clip, norm)
    }

    fn update(&mut self, range: &Range<u32>, training: &Training, clip: Tensor) {
        let (offset, n) = (range.start, range.end - range.start);
        let stride = self.parameter_stride() as u32;
        let clipped = u32::from(training.clip_norm.is_some());
        let scale = 1.0;
        let update = match training.optimizer {
            Optimizer::Sgd { momentum: 0.0, weight_decay, .. } => {
                let weight_decay = weight_decay as f32;
                Update::Plain(SgdPlain { offset, n, stride, weight_decay, scale, clipped })
            }
            Optimizer::Sgd { momentum, dampening, nesterov, weight_decay } => {
                Update::Momentum(Sgd {
                    offset,
                    n,
                    stride,
                    momentum: momentum as f32,
                    fresh: (1.0 - dampening) as f32,
                    nesterov: nesterov.into(),
                    weight_decay: weight_decay as f32,
                    scale,
                    clipped,
                })
            }
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay, amsgrad }
            | Optimizer::AdamW { beta1, beta2, epsilon, weight_decay, amsgrad } => {
                let decoupled = matches!(training.optimizer, Optimizer::AdamW { .. });
                let params = Adam {
                    offset,
                    n,
                    stride,
                    epsilon: epsilon as f32,
                    weight_decay: weight_decay as f32,
                    decoupled: decoupled.into(),
                    scale,
                    clipped,
                    ..Adam::default()
                };
                let params = params.betas(beta1, beta2);
                if amsgrad { Update::AmsGrad(params) } else { Update::Adam(params) }
            }
        };
        let mut args = vec![Operand::Flat(Flat::Parameters), Operand::Flat(Flat::Gradients)];
        let moments = training.optimizer.moments();
        // The largest second moments come last: the kernel is Adam's but for them.
        let (own, largest) = moments.split_at(moments.len().min(2));
        args.extend(own.iter().map(|moment| Operand::Flat(*moment)));
        args.extend([Operand::State, clip.into()]);
        args.extend(largest.iter().map(|moment| Operand::Flat(*moment)));
        match update {
            Update::Plain(params) => self.dispatch(&SGD_PLAIN, &params, &args),
            Update::Momentum(params) => self.dispatch(&SGD, &params, &args),
            Update::Adam(params) => self.dispatch(&ADAM, &params, &args),
            Update::AmsGrad(params) => self.dispatch(&AMSGRAD, &params, &args),
        }
    }

    fn advance(&mut self, loss: Tensor, extra: Tensor, schedule: &Schedule) {
        let (batch, stream) = self.feed.as_ref().map_or((1, false), |f| (f.batch, f.stream));
        let params = Advance::new(batch as u32, stream, RING_STEPS as u32, schedule);
        let args = [Operand::State, loss.into(), extra.into(), Operand::Ring];
        self.dispatch(&ADVANCE, &params, &args);
    }

    fn records(&self, schedule: &Schedule, seed: u32, limit: Option<u32>) -> Vec<StateRecord> {
        let limit = limit.unwrap_or(u32::MAX);
        (0..self.arena.replicas())
            .map(|replica| {
                let seed = seed.wrapping_add(replica as u32);
                let Some(feed) = &self.feed else {
                    return StateRecord::new(seed, 0..1, 1, limit, schedule);
                };
                let part = &feed.parts[replica % feed.parts.len()];
                let part = part.start as u32..part.end as u32;
                let make = if feed.stream { StateRecord::stream } else { StateRecord::new };
                make(seed, part, feed.batch as u32, limit, schedule)
            })
            .collect()
    }
}
