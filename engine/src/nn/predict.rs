//! What models make of samples from the host.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::nn::{Mode, Model};
use crate::{Arena, Data, Element, Error, Graph, Plan, Result, Tensor};

/// The smallest batch that there is a plan for, unless a predictor takes fewer.
const LEAST: usize = 8;

/// A forward pass over samples from the host, batch by batch, by the weights that are in the arena
/// at the time. It is recorded when it is first needed, for batches of powers of two.
///
/// ```
/// use tern_engine::nn::{ModelSpec, Predictor};
/// use tern_engine::{Arena, Device};
///
/// # fn main() -> tern_engine::Result<()> {
/// let (parameters, model) = ModelSpec::mlp(2, &[8], 3).build()?;
/// let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
/// let mut predictor = Predictor::new(&arena, &model, 64)?;
/// // Three logits for each of two samples.
/// # #[cfg(feature = "blocking")]
/// assert_eq!(predictor.predict(&[0.1, 0.9, 0.4, -0.3])?.len(), 6);
/// # Ok(())
/// # }
/// ```
pub struct Predictor {
    arena: Arena,
    width: usize,
    most: usize,
    record: Box<Record>,
    /// By batch, made when first needed.
    plans: BTreeMap<usize, Batch>,
}

type Record = dyn Fn(&mut Graph, Tensor) -> Result<Vec<Tensor>> + Send + Sync;

/// A plan for so many samples.
struct Batch {
    plan: Plan,
    samples: Tensor,
    outputs: Vec<Tensor>,
}

impl Predictor {
    /// The output of a model that takes features or images, at most `batch` samples at a time.
    /// Layers predict without dropout.
    ///
    /// # Errors
    /// [`Error::Value`] for a model of tokens, which a [`TextPredictor`](super::TextPredictor)
    /// reads, a batch of none, or an arena of another model's parameters.
    pub fn new(arena: &Arena, model: &Model, batch: usize) -> Result<Self> {
        let Some(width) = model.input().floats() else {
            let given = format!("{:?}", model.input());
            return Err(Error::value("input of the model", given, "features or images"));
        };
        let model = model.clone();
        Self::record(arena, width, batch, move |graph, samples| {
            Ok(vec![model.forward(graph, samples, Mode::Evaluate)?.output])
        })
    }

    /// Any outputs: `record` is given `[n, width]` samples, n up to `batch`, and gives tensors of
    /// floats `[n, ...]`, each row of which must depend on its own sample alone.
    ///
    /// # Errors
    /// [`Error::Value`] for a batch or samples of nothing; [`Error::Shape`] for an output without
    /// a row for each sample; what `record` fails with.
    pub fn record(
        arena: &Arena,
        width: usize,
        batch: usize,
        record: impl Fn(&mut Graph, Tensor) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Result<Self> {
        if batch == 0 || width == 0 {
            let given = format!("{batch} samples of {width}");
            return Err(Error::value("batch", given, "at least one of one"));
        }
        let first = Batch::record(arena, width, batch, &record)?;
        Ok(Predictor {
            arena: arena.clone(),
            width,
            most: batch,
            record: Box::new(record),
            plans: BTreeMap::from([(batch, first)]),
        })
    }

    /// The first output for each sample of `samples` `[N, width]`, as every replica has it: `[R,
    /// N, ...]`.
    ///
    /// # Errors
    /// [`Error::Value`] for samples of another width, none of them, or a number that isn't
    /// finite; device errors.
    pub async fn predict_async(&mut self, samples: &[f32]) -> Result<Vec<f32>> {
        Ok(self.outputs_async(samples).await?.into_iter().next().unwrap_or_default())
    }

    /// Every output for each sample of `samples` `[N, width]`: `[R, N, ...]` each.
    ///
    /// # Errors
    /// As of [`Predictor::predict_async`].
    pub async fn outputs_async(&mut self, samples: &[f32]) -> Result<Vec<Vec<f32>>> {
        let width = self.width;
        if samples.is_empty() || !samples.len().is_multiple_of(width) {
            let expected = format!("rows of {width}, at least one");
            return Err(Error::value("numbers of the samples", samples.len(), expected));
        }
        if let Some(at) = samples.iter().position(|x| !x.is_finite()) {
            let name = format!("number {} of sample {}", at % width, at / width);
            return Err(Error::value(name, samples[at], "a finite number"));
        }
        // By output, then by replica.
        let mut all: Vec<Vec<Vec<f32>>> = Vec::new();
        for rows in samples.chunks(self.most * width) {
            let outputs = self.run(rows).await?;
            all.resize_with(outputs.len(), || vec![Vec::new(); self.arena.replicas()]);
            for (all, output) in all.iter_mut().zip(outputs) {
                let each = output.len() / all.len();
                all.iter_mut().zip(output.chunks(each)).for_each(|(all, part)| all.extend(part));
            }
        }
        Ok(all.into_iter().map(|replicas| replicas.concat()).collect())
    }

    /// The outputs of at most a batch of samples.
    async fn run(&mut self, rows: &[f32]) -> Result<Vec<Vec<f32>>> {
        let count = rows.len() / self.width;
        // Few samples needn't pay for many.
        let batch = count.next_power_of_two().max(LEAST).min(self.most);
        let Batch { plan, samples, outputs } = match self.plans.entry(batch) {
            Entry::Occupied(plan) => plan.into_mut(),
            Entry::Vacant(none) => {
                none.insert(Batch::record(&self.arena, self.width, batch, &self.record)?)
            }
        };
        let mut block = rows.to_vec();
        block.resize(batch * self.width, 0.0);
        let replicas = self.arena.replicas();
        plan.write_async(*samples, &Data::F32(block.repeat(replicas))).await?;
        plan.run_async(1).await?;
        let mut read = Vec::with_capacity(outputs.len());
        for output in outputs {
            let values = plan.read_async(*output).await?.floats()?;
            let each = values.len() / replicas;
            let parts = values.chunks(each).map(|values| &values[..each / batch * count]);
            read.push(parts.collect::<Vec<_>>().concat());
        }
        Ok(read)
    }

    /// [`Predictor::predict_async`], waiting.
    ///
    /// # Errors
    /// As of it.
    #[cfg(feature = "blocking")]
    pub fn predict(&mut self, samples: &[f32]) -> Result<Vec<f32>> {
        let device = self.arena.device().clone();
        device.wait(self.predict_async(samples))
    }

    /// [`Predictor::outputs_async`], waiting.
    ///
    /// # Errors
    /// As of it.
    #[cfg(feature = "blocking")]
    pub fn outputs(&mut self, samples: &[f32]) -> Result<Vec<Vec<f32>>> {
        let device = self.arena.device().clone();
        device.wait(self.outputs_async(samples))
    }
}

impl Batch {
    fn record(arena: &Arena, width: usize, batch: usize, record: &Record) -> Result<Self> {
        let mut graph = Graph::new(arena);
        let samples = graph.input("samples", &[batch, width], Element::F32);
        let outputs = record(&mut graph, samples)?;
        for output in &outputs {
            let shape = graph.shape(*output);
            if shape.first() != Some(&batch) || graph.element(*output) != Element::F32 {
                let what = format!("output {shape:?}, expected floats [{batch}, ...]");
                return Err(Error::shape("predictor", what));
            }
        }
        let outputs = outputs.into_iter().map(|output| graph.keep(output)).collect();
        Ok(Batch { plan: graph.forward()?, samples, outputs })
    }
}
