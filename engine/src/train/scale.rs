//! A factor on the loss in the backward pass.

use tern_shaders::Element;
use tern_shaders::kernels::optimizer::{MEAN_OF_PARTS, MeanOfParts};
use tern_shaders::kernels::pointwise::{SCALE_BY, ScaleBy};
use tern_shaders::kernels::state::{LOSS_SCALES, LossScales, RESCALE, Rescale};

use super::within;
use crate::{Flat, Graph, Operand, Result, Tensor};

/// A factor on the loss, so that small gradients aren't rounded to zero where the backward pass
/// multiplies [halves](crate::Precision::Half) (Micikevicius et al. 2018, section 3.2), and how it
/// changes: a step whose gradients aren't finite updates no parameters and lowers the factor, to 1 at least,
/// and many in a row that are raise it. What the forward pass moves on (running moments, carried states) it
/// moves in such a step, too. Gradients are divided by the factor before anything is made of them. Defaults
/// are those of `torch.amp.GradScaler`. A replica fails where gradients aren't finite though the factor is
/// down to 1, or the loss itself is not a number.
///
/// The factor is in the replica's [record](tern_shaders::state::StateRecord) and in checkpoints; a record
/// that is [new](crate::Plan::set_states) begins with the first one.
///
/// ```
/// use tern_engine::nn::{Mode, ModelSpec};
/// use tern_engine::{
///     Arena, Batching, Device, Graph, LossScale, Optimizer, Precision, RowData, Training,
/// };
///
/// # fn main() -> tern_engine::Result<()> {
/// let (parameters, model) = ModelSpec::mlp(4, &[8], 4).build()?;
/// let model = model.precision(Precision::Half);
/// let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
/// # let (features, labels) = ([0.5; 4 * 40], [2; 40]);
/// let data = RowData::upload(arena.device(), &features, 4, &labels, 4)?;
/// let mut graph = Graph::new(&arena);
/// let (x, labels) = graph.row_batch(&data, &Batching::shuffled(8))?;
/// let logits = model.forward(&mut graph, x, Mode::Train)?.output;
/// let loss = graph.cross_entropy(logits, labels)?;
/// // 2^24 is too much for halves: steps are skipped until it isn't.
/// let scale = LossScale { initial: 16_777_216.0, ..LossScale::default() };
/// let training = Training::new(Optimizer::adam(), 1e-2).loss_scale(scale);
/// let mut plan = graph.train(loss, &training)?;
/// plan.run(20)?;
/// let record = plan.states()?[0];
/// assert!(record.skipped() > 0 && record.skipped() < 20);
/// assert!(record.loss_scale() < Some(16_777_216.0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// The factor of the first step, at least 1.
    pub initial: f32,
    /// Factor on it after `interval` steps in a row.
    pub growth: f32,
    /// Factor on it after a step that was skipped.
    pub backoff: f32,
    /// Steps in a row after which it grows.
    pub interval: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale { initial: 65_536.0, growth: 2.0, backoff: 0.5, interval: 2_000 }
    }
}

impl LossScale {
    pub(super) fn check(&self) -> Result<()> {
        within("initial loss scale", self.initial.into(), 1.0..f64::INFINITY)?;
        within("growth of the loss scale", self.growth.into(), 1.0..f64::INFINITY)?;
        within("backoff of the loss scale", self.backoff.into(), 0.0..1.0)?;
        within("interval of the loss scale", self.interval.into(), 1.0..f64::INFINITY)
    }
}

impl Graph {
    /// The factor on each replica's loss in this step, if there is one.
    pub(super) fn loss_scales(&mut self, scale: Option<LossScale>) -> Option<Tensor> {
        let params = LossScales { initial: scale?.initial };
        let factor = self.tensor("loss scale", &[1], Element::F32);
        self.dispatch(&LOSS_SCALES, &params, &[Operand::State, factor.into()]);
        Some(factor)
    }

    /// Where the loss has a factor, a count of targets times the factor over as many as there are `most`:
    /// what the backward pass of a part of a batch starts from, and what the sum of gradients is divided by
    /// in the end. The count itself where it has none.
    pub(super) fn seed(&mut self, count: Tensor, factor: Option<Tensor>, most: usize) -> Tensor {
        let Some(factor) = factor else { return count };
        let seed = self.tensor("scaled seed", &[1], Element::F32);
        let params = ScaleBy { n: 1, factor: 1.0 / most as f32, accumulate: 0 };
        self.dispatch(&SCALE_BY, &params, &[count.into(), factor.into(), seed.into()]);
        seed
    }

    /// Divides gradients by a number of each replica: a count of targets, a factor on the loss, or both.
    pub(super) fn divide_gradients(&mut self, written: &[bool], divisor: Tensor) {
        let stride = self.parameter_stride() as u32;
        for range in self.ranges(written) {
            let (offset, n) = (range.start, range.end - range.start);
            let params = MeanOfParts { offset, n, stride };
            let args = [divisor.into(), Operand::Flat(Flat::Gradients)];
            self.dispatch(&MEAN_OF_PARTS, &params, &args);
        }
    }

    /// The factor of the next step.
    pub(super) fn rescale(&mut self, scale: LossScale) {
        let LossScale { initial, growth, backoff, interval } = scale;
        let params = Rescale { initial, growth, backoff, interval };
        self.dispatch(&RESCALE, &params, &[Operand::State]);
    }
}
