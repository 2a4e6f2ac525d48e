//! A training step: gradients, clipping, the optimizer and the state record's advance.

use std::ops::Range;

use tern_shaders::Element;
use tern_shaders::kernels::optimizer::{
    ADAM, AMSGRAD, AVERAGE, Adam, Average, NORM_FINISH, NORM_PARTIAL, NormFinish, NormPartial,
    PROXIMAL, Proximal, SGD, SGD_PLAIN, Sgd, SgdPlain, norm_partials,
};
use tern_shaders::kernels::state::{ADVANCE, Advance, CHECK, Check};
use tern_shaders::schedule::Schedule;
use tern_shaders::state::StateRecord;

use super::{Optimizer, Training};
use crate::backward::drain;
use crate::graph::{Graph, Tensor};
use crate::plan::RING_STEPS;
use crate::{Error, Flat, Operand, Plan, Result};

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
    /// With a [factor on the loss](crate::LossScale) a step is skipped instead, while that may help.
    ///
    /// # Errors
    /// [`Error::Shape`] if the loss isn't one value; [`Error::Value`] for options out of
    /// range or a loss that no trained parameter reaches; as [`Graph::forward`].
    pub fn train(mut self, loss: Tensor, training: &Training) -> Result<Plan> {
        training.check()?;
        self.check_loss(loss)?;
        let boundary = self.boundary();
        let factor = self.loss_scales(training.loss_scale);
        let seed = factor.unwrap_or_else(|| self.constant(1.0, &[1]));
        let trained = self.trained(&training.trainable);
        let fresh = vec![false; trained.len()];
        let drained = drain(&mut self, &[(loss, seed)], (trained, fresh), &[])?;
        self.finish(boundary, (loss, factor), &drained.written, training)
    }

    /// The plan of a step whose gradients, times a divisor or as they are, are recorded: what comes of
    /// them.
    pub(super) fn finish(
        mut self,
        boundary: usize,
        (loss, divisor): (Tensor, Option<Tensor>),
        written: &[bool],
        training: &Training,
    ) -> Result<Plan> {
        let ranges = self.ranges(written);
        if ranges.is_empty() {
            let expected = "one that the loss depends on";
            return Err(Error::value("trained parameters", "none", expected));
        }
        let updates = self.updates(written, training)?;
        if let Some(divisor) = divisor {
            self.divide_gradients(written, divisor);
        }
        if let Some(mu) = training.proximal {
            self.pull(&ranges, mu);
        }
        let scaled = training.loss_scale.is_some();
        // Of scaled gradients the norm is looked at in any case.
        let max_norm = training.clip_norm.or(scaled.then_some(f32::MAX.into()));
        let (clip, norm) = match max_norm {
            Some(max_norm) => self.clip(&ranges, max_norm),
            None => (self.constant(1.0, &[1]), self.constant(0.0, &[1])),
        };
        let initial = training.loss_scale.map_or(0.0, |scale| scale.initial);
        let checked = Check { clipped: max_norm.is_some().into(), initial };
        self.dispatch(&CHECK, &checked, &[Operand::State, loss.into(), norm.into()]);
        for (range, optimizer, rate) in &updates {
            self.update(range, *optimizer, *rate, (checked.clipped, clip));
        }
        if let Some(decay) = training.average {
            let (stride, fresh) = (self.parameter_stride() as u32, (1.0 - decay) as f32);
            let [parameters, average] = [Flat::Parameters, Flat::Average].map(Operand::Flat);
            for range in self.ranges(&vec![true; written.len()]) {
                let (offset, n) = (range.start, range.end - range.start);
                let params = Average { offset, n, stride, fresh };
                self.dispatch(&AVERAGE, &params, &[parameters, average, Operand::State]);
            }
        }
        if let Some(scale) = training.loss_scale {
            self.rescale(scale);
        }
        self.advance(loss, norm, &training.schedule);
        let records = self.records(&training.schedule, training.seed, training.limit);
        Plan::new(self, boundary, records, true)
    }

    /// By group, what the optimizer does with which words of the flat vector, and at which part of
    /// the learning rate.
    fn updates(
        &self,
        written: &[bool],
        training: &Training,
    ) -> Result<Vec<(Range<u32>, Optimizer, f32)>> {
        let parameters = self.arena.parameters();
        let of: Vec<Option<usize>> = parameters
            .iter()
            .map(|p| training.groups.iter().position(|group| group.names.cover(&p.name)))
            .collect();
        let mut updates = Vec::new();
        let groups = training.groups.iter().map(Some).enumerate();
        for (at, group) in groups.map(|(at, group)| (Some(at), group)).chain([(None, None)]) {
            let own: Vec<bool> =
                of.iter().zip(written).map(|(of, written)| *written && *of == at).collect();
            let ranges = self.ranges(&own);
            if let Some(group) = group.filter(|_| ranges.is_empty()) {
                let expected = "names of trained parameters that are in no group before";
                return Err(Error::value(
                    "parameter group",
                    format!("{:?}", group.names),
                    expected,
                ));
            }
            let decay = group.and_then(|group| group.weight_decay);
            let optimizer = match decay {
                Some(decay) => training.optimizer.decaying(decay),
                None => training.optimizer,
            };
            let rate = group.map_or(1.0, |group| group.rate) as f32;
            updates.extend(ranges.into_iter().map(|range| (range, optimizer, rate)));
        }
        Ok(updates)
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

    pub(super) fn check_loss(&self, loss: Tensor) -> Result<()> {
        if self.len(loss) == 1 {
            return Ok(());
        }
        let what = format!("the loss has shape {:?}, expected one value", self.shape(loss));
        Err(Error::shape("train", what))
    }

    /// Words of the flat vector that hold the marked parameters, neighbors joined up to what a binding may
    /// hold.
    pub(super) fn ranges(&self, marked: &[bool]) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        let arena = self.arena.clone();
        // A call binds what it changes.
        let limit = arena.device().profile().max_binding / 4;
        for param in arena.parameters().iter().filter(|p| marked[p.index]) {
            let (start, end) = (param.offset as u32, (param.offset + param.padded()) as u32);
            match ranges.last_mut() {
                Some(last) if last.end == start && u64::from(end - last.start) <= limit => {
                    last.end = end;
                }
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

    fn update(
        &mut self,
        range: &Range<u32>,
        optimizer: Optimizer,
        rate: f32,
        (clipped, clip): (u32, Tensor),
    ) {
        let (offset, n) = (range.start, range.end - range.start);
        let stride = self.parameter_stride() as u32;
        let scale = 1.0;
        let update = match optimizer {
            Optimizer::Sgd { momentum: 0.0, weight_decay, .. } => {
                let weight_decay = weight_decay as f32;
                Update::Plain(SgdPlain { offset, n, stride, weight_decay, scale, clipped, rate })
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
                    rate,
                })
            }
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay, amsgrad }
            | Optimizer::AdamW { beta1, beta2, epsilon, weight_decay, amsgrad } => {
                let decoupled = matches!(optimizer, Optimizer::AdamW { .. });
                let params = Adam {
                    offset,
                    n,
                    stride,
                    epsilon: epsilon as f32,
                    weight_decay: weight_decay as f32,
                    decoupled: decoupled.into(),
                    scale,
                    clipped,
                    rate,
                    ..Adam::default()
                };
                let params = params.betas(beta1, beta2);
                if amsgrad { Update::AmsGrad(params) } else { Update::Adam(params) }
            }
        };
        let mut args = vec![Operand::Flat(Flat::Parameters), Operand::Flat(Flat::Gradients)];
        let moments = optimizer.moments();
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
