//! Steps whose batch goes through the model in parts: gradients are added up, memory is that of one.

use tern_shaders::Element;
use tern_shaders::kernels::optimizer::{MEAN_OF_PARTS, MeanOfParts};
use tern_shaders::kernels::pointwise::{SCALE, SCALE_BY, Scale, ScaleBy};

use super::Training;
use crate::backward::drain;
use crate::graph::{Graph, Part, Tensor};
use crate::{Error, Plan, Result};

impl Graph {
    /// [`Graph::train`] with a batch that goes through the model in `parts`, one after the other, each
    /// forward and backward (gradient accumulation): activations take the memory of one part, and the
    /// numbers are those of the whole batch. `record` is called for each part, takes a batch of the
    /// part's size as it otherwise would ([`Graph::row_batch`], [`Graph::text_batch`]), and gives the
    /// part's loss. Losses that are means over targets count by these, sums are added, and all others
    /// count alike.
    ///
    /// ```
    /// use tern_engine::nn::{Mode, ModelSpec};
    /// use tern_engine::{Arena, Batching, Device, Graph, Optimizer, RowData, Training};
    ///
    /// # fn main() -> tern_engine::Result<()> {
    /// let (parameters, model) = ModelSpec::mlp(2, &[8], 3).build()?;
    /// let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
    /// # let (features, labels) = ([0.5; 2 * 40], [2; 40]);
    /// let data = RowData::upload(arena.device(), &features, 2, &labels, 3)?;
    /// // Batches of 32 in four parts of 8.
    /// let training = Training::new(Optimizer::adam(), 1e-2);
    /// let mut plan = Graph::new(&arena).train_in_parts(4, &training, |graph| {
    ///     let (x, labels) = graph.row_batch(&data, &Batching::shuffled(8))?;
    ///     let logits = model.forward(graph, x, Mode::Train)?.output;
    ///     graph.cross_entropy(logits, labels)
    /// })?;
    /// let losses = plan.run(10)?;
    /// assert_eq!(losses.rows[0][..2], [32.0, 8.0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] for no parts, ops that were recorded before and have gradients, and a
    /// [stream](Graph::stream_batch), which has no parts; as [`Graph::train`], and those of `record`.
    pub fn train_in_parts(
        mut self,
        parts: usize,
        training: &Training,
        mut record: impl FnMut(&mut Graph) -> Result<Tensor>,
    ) -> Result<Plan> {
        training.check()?;
        if parts == 0 {
            return Err(Error::value("parts of a batch", 0, "at least 1"));
        }
        if !self.tape.is_empty() || self.feed.is_some() {
            let expected = "none: `record` records the model and takes the batch";
            return Err(Error::value("ops before the parts of a batch", "some", expected));
        }
        // Forward and backward alternate: as passes apart there is the second one alone.
        let boundary = self.calls.len();
        let factor = self.loss_scales(training.loss_scale);
        let one = self.constant(1.0, &[1]);
        let loss = self.tensor("loss of the batch", &[1], Element::F32);
        let count = self.tensor("count of the batch", &[1], Element::F32);
        let mut written = vec![false; self.arena.parameters().len()];
        let mut sums = true;
        // Targets that the batch has at most: the factor is one of its loss.
        let mut most = 1;
        for number in 0..parts {
            self.part = Some(Part { number, of: parts, fed: false });
            let part = record(&mut self)?;
            self.check_loss(part)?;
            let over = self.means.get(&self.root(part)).copied().unwrap_or(Some((one, 1)));
            let weight = over.map_or(one, |(count, _)| count);
            sums &= over.is_none();
            if number == 0 {
                most = over.map_or(1, |(_, rows)| rows * parts);
            }
            let accumulate = u32::from(number > 0);
            let params = ScaleBy { n: 1, factor: 1.0, accumulate };
            self.dispatch(&SCALE_BY, &params, &[part.into(), weight.into(), loss.into()]);
            let params = Scale { n: 1, factor: 1.0, accumulate };
            self.dispatch(&SCALE, &params, &[weight.into(), count.into()]);
            let trained = self.trained(&training.trainable);
            let seed = self.seed(weight, factor, most);
            written = drain(&mut self, &[(part, seed)], (trained, written), &[])?.written;
        }
        self.part = None;
        let mut divisor = factor;
        if !sums {
            divisor = Some(self.seed(count, factor, most));
            let params = MeanOfParts { offset: 0, n: 1, stride: 1 };
            self.dispatch(&MEAN_OF_PARTS, &params, &[count.into(), loss.into()]);
        }
        self.finish(boundary, (loss, divisor), &written, training)
    }
}
