//! Making a round's model: from the stored updates and the last model, by strategy.

use std::io::BufReader;
use std::sync::Arc;

use tern_engine::Device;
use tern_protocol::coordinator::{Coordinator, Head, Unmasking};
use tern_protocol::metrics::{Metrics, is_measured};
use tern_protocol::plan::Encoding;
use tern_protocol::strategy::advance;
use tern_protocol::update::{Codec, Format, Kind, Scales, add_difference};
use tern_protocol::{
    ClientId, Code, Digest, Error, Layout, Masking, Refusal, Result, RunPlan, Strategy,
    StrategyState, Total, Turn,
};

use super::{Evaluator, Options};
use crate::blobs::Blobs;

/// What the updates of an attempt add up to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sum {
    /// Weighted, of floats.
    Clear(Total),
    /// Of masked words, mod 2^32.
    Masked(Vec<u32>),
}

/// What models are made with: the same for all rounds of a run.
pub(super) struct Context {
    plan: RunPlan,
    layout: Layout,
    strategy: Arc<dyn Strategy>,
    evaluator: Option<Arc<dyn Evaluator>>,
    blobs: Blobs,
    codec: Codec,
}

impl Context {
    pub fn new(
        plan: &RunPlan,
        layout: &Layout,
        strategy: Arc<dyn Strategy>,
        options: &Options,
        blobs: Blobs,
    ) -> Result<Self> {
        Ok(Context {
            plan: plan.clone(),
            layout: layout.clone(),
            strategy,
            evaluator: options.evaluator.clone(),
            blobs,
            codec: Codec::new(&Device::cpu(), layout)?,
        })
    }

    /// What bodies of the open attempt look like.
    pub fn format(&self, coordinator: &Coordinator) -> Format {
        let kind = match coordinator.masking() {
            Some(masking) => Kind::Masked(masking.packing),
            None => self.plan.updates.uplink.into(),
        };
        Format::new(kind, &self.layout, self.plan.updates.bound)
    }

    /// A sum of nothing for the open attempt.
    pub fn empty(&self, coordinator: &Coordinator) -> Sum {
        empty(&self.format(coordinator), &self.layout, &self.plan)
    }

    /// Adds an accepted update of the open attempt.
    pub fn add_update(
        &self,
        coordinator: &Coordinator,
        total: &mut Sum,
        client: &ClientId,
        weight: u32,
    ) -> Result<()> {
        add_update(
            &self.blobs,
            &self.format(coordinator),
            total,
            coordinator.turn(),
            client,
            weight,
        )
    }

    /// A stored model as a flat vector.
    pub fn model(&self, digest: &Digest) -> Result<Vec<f32>> {
        let bytes = self.blobs.read_model(digest)?;
        if Digest::of(&bytes) != *digest {
            let path = self.blobs.model_path(digest);
            return Err(Error::file(&path, "its bytes have another SHA-256"));
        }
        Format::new(Kind::Full, &self.layout, f32::MAX).decode(&bytes)
    }

    fn state(&self, head: &Head) -> Result<StrategyState> {
        let Some(digest) = &head.state else { return Ok(StrategyState::default()) };
        let path = self.blobs.model_path(digest);
        StrategyState::from_bytes(&self.blobs.read_model(digest)?)
            .ok_or_else(|| Error::file(&path, "is no state of a strategy"))
    }
}

fn empty(format: &Format, layout: &Layout, plan: &RunPlan) -> Sum {
    match format.kind() {
        Kind::Masked(packing) => Sum::Masked(vec![0; packing.words()]),
        _ => Sum::Clear(Total::new(layout.elements(), plan.fraction_bits())),
    }
}

/// Adds a stored update.
pub(super) fn add_update(
    blobs: &Blobs,
    format: &Format,
    total: &mut Sum,
    turn: Turn,
    client: &ClientId,
    weight: u32,
) -> Result<()> {
    let body = BufReader::with_capacity(1 << 16, blobs.upload(turn, client)?);
    match total {
        Sum::Clear(total) => {
            total.begin(weight);
            format.values(body, |at, part| total.add(at, part, weight))
        }
        Sum::Masked(total) => format.add_masked(body, total),
    }
}

/// Ternary scales for the next round, where the server sets them: four times the root mean square
/// of each tensor of the mean update, but at most twice the last scale and at least half of it.
/// Codes are drawn, so that a scale too large adds noise and one too small clips; what is clipped
/// waits in the clients' residuals.
fn next_scales(layout: &Layout, last: &[f32], mean: &[f32]) -> Vec<f32> {
    let next = |(last, param): (&f32, &tern_engine::Param)| {
        let values = &mean[param.offset..][..param.len()];
        let square: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
        let wanted = 4.0 * (square / values.len().max(1) as f64).sqrt();
        (wanted as f32).clamp(last / 2.0, last * 2.0).clamp(1e-9, 1e9)
    };
    last.iter().zip(layout.parameters().iter()).map(next).collect()
}

/// A model to be made. It holds all that it needs; nothing else changes the round meanwhile.
pub struct Aggregation {
    context: Arc<Context>,
    turn: Turn,
    head: Head,
    format: Format,
    uploads: Vec<(ClientId, u32)>,
    unmasking: Option<(Masking, Unmasking)>,
    total: Option<Sum>,
}

/// The model of a round.
pub struct Aggregated {
    pub(super) turn: Turn,
    pub(super) head: Head,
}

impl Aggregation {
    pub(super) fn new(
        context: Arc<Context>,
        coordinator: &Coordinator,
        total: Option<Sum>,
    ) -> Self {
        let uploads = coordinator.accepted().map(|(client, upload)| (*client, upload.samples));
        Aggregation {
            turn: coordinator.turn(),
            head: coordinator.head().clone(),
            format: context.format(coordinator),
            uploads: uploads.collect(),
            unmasking: coordinator.masking().cloned().zip(coordinator.unmasking().cloned()),
            total,
            context,
        }
    }

    /// Makes and stores it.
    ///
    /// # Errors
    /// If an update can't be read, the model not be stored or evaluated, or is not finite.
    pub fn run(mut self) -> Result<Aggregated> {
        let total = match self.total.take() {
            Some(total) => total,
            None => self.refold()?,
        };
        let context = &self.context;
        let (mean, training) = match total {
            Sum::Clear(total) => (total.mean(), Metrics::new()),
            Sum::Masked(total) => self.unmask(total)?,
        };
        let mut model = context.model(&self.head.model)?;
        let mut state = context.state(&self.head)?;
        let kind = context.plan.updates.kind;
        let scales = next_scales(&context.layout, &self.head.scales, &mean);
        advance(&*context.strategy, kind, &context.layout, &mut model, mean, &mut state)?;
        let stored = context.blobs.put_model(&Codec::full(&model))?;
        let (public, difference) = match context.plan.updates.downlink {
            Encoding::Ternary => {
                let (body, values) = self.difference(&model)?;
                let difference = context.blobs.put_model(&body)?;
                model = values;
                (context.blobs.put_model(&Codec::full(&model))?, Some(difference))
            }
            Encoding::Full | Encoding::Half => (stored, None),
        };
        let mut metrics = match &context.evaluator {
            Some(evaluator) => evaluator.evaluate(self.turn.round, &model)?,
            None => Metrics::new(),
        };
        metrics.retain(|_, value| is_measured(*value));
        let state = match state.vectors.is_empty() {
            true => None,
            false => Some(context.blobs.put_model(&state.to_bytes())?),
        };
        let head = Head { model: stored, public, difference, state, scales, metrics, training };
        Ok(Aggregated { turn: self.turn, head })
    }

    /// The mean from the sum of masked words, and those of the metrics behind it.
    fn unmask(&self, mut total: Vec<u32>) -> Result<(Vec<f32>, Metrics)> {
        let Some((masking, unmasking)) = &self.unmasking else {
            return Err(Refusal::Malformed("total").into());
        };
        unmasking.masks.add_to(&mut total);
        let modulus_mask = masking.packing.modulus_mask();
        total.iter_mut().for_each(|word| *word &= modulus_mask);
        let measured = total.split_off(masking.vector_words());
        let codec = &self.context.codec;
        let weight: u64 = self.uploads.iter().map(|(_, w)| u64::from(*w)).sum();
        let mean = match masking.code {
            Code::Lanes(cohort) => {
                let clients = self.uploads.len() as u32;
                codec.unmasked_ternary(&total, &self.head.scales, cohort, clients)?
            }
            Code::Fixed(code) => {
                let factor = f64::from(unmasking.max_samples) / weight.max(1) as f64;
                let mut mean = codec.unmasked(&total, code)?;
                mean.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
                mean
            }
        };
        Ok((mean, masking.measured.means(&measured, weight)))
    }

    /// The total, from the stored updates.
    fn refold(&self) -> Result<Sum> {
        let context = &self.context;
        let mut total = empty(&self.format, &context.layout, &context.plan);
        for (client, weight) in &self.uploads {
            add_update(&context.blobs, &self.format, &mut total, self.turn, client, *weight)?;
        }
        Ok(total)
    }

    /// Ternary codes of what clients' model lacks of the server's, and clients' next model. What
    /// the codes leave is in the next difference again (error feedback).
    fn difference(&self, model: &[f32]) -> Result<(Vec<u8>, Vec<f32>)> {
        let context = &self.context;
        let public = context.model(&self.head.public)?;
        let ahead: Vec<f32> = model.iter().zip(&public).map(|(a, b)| a - b).collect();
        let scales = Scales::Own(context.plan.updates.ternary);
        let key = [self.turn.round, u32::MAX, context.plan.seed];
        let (body, _) = context.codec.ternary(&ahead, &vec![0.0; ahead.len()], scales, key)?;
        let values = add_difference(&context.layout, &public, &body)?;
        Ok((body, values))
    }
}
