//! Making a round's model: from the stored updates and the last model, by strategy.

use std::sync::Arc;

use tern_engine::Device;
use tern_protocol::coordinator::{Coordinator, Head, Unmasking};
use tern_protocol::metrics::{Metrics, is_measured};
use tern_protocol::plan::Encoding;
use tern_protocol::strategy::advance;
use tern_protocol::update::{Codec, Format, Kind, Scales, add_difference};
use tern_protocol::{
    ClientId, Code, Digest, Error, Layout, Masking, Refusal, Result, RunPlan, Strategy,
    StrategyState, Turn,
};

use super::fold::{Counted, Folding, Sum};
use super::{Evaluator, Options};
use crate::storage::Bodies;

/// What models are made with: the same for all rounds of a run.
pub(super) struct Context {
    pub plan: RunPlan,
    pub layout: Layout,
    pub strategy: Arc<dyn Strategy>,
    evaluator: Option<Arc<dyn Evaluator>>,
    pub bodies: Arc<dyn Bodies>,
    pub folding: Folding,
    codec: Codec,
}

impl Context {
    pub fn new(
        plan: &RunPlan,
        layout: &Layout,
        strategy: Arc<dyn Strategy>,
        options: &Options,
        bodies: Arc<dyn Bodies>,
    ) -> Result<Self> {
        Ok(Context {
            plan: plan.clone(),
            layout: layout.clone(),
            strategy,
            evaluator: options.evaluator.clone(),
            bodies,
            folding: Folding::new(plan)?,
            codec: Codec::new(&Device::cpu(), layout)?,
        })
    }

    /// A stored model as a flat vector.
    pub fn model(&self, digest: &Digest) -> Result<Vec<f32>> {
        Format::new(Kind::Full, &self.layout, f32::MAX).decode(&self.body(digest)?)
    }

    /// The bytes of a stored model or state. Where its file is damaged, those of the models that
    /// are written for people are looked at, and it is repaired by one that is the same.
    pub fn body(&self, digest: &Digest) -> Result<Vec<u8>> {
        let damage = match self.bodies.read(digest) {
            Ok(bytes) => return Ok(bytes),
            Err(damage) => damage,
        };
        let Some(bytes) = self.copy(digest) else { return Err(damage) };
        tracing::warn!(%damage, "repaired from a copy");
        self.bodies.put(&bytes)?;
        Ok(bytes)
    }

    /// A model from one of the files that are written for people.
    pub fn copy(&self, digest: &Digest) -> Option<Vec<u8>> {
        let folder = self.bodies.folder()?;
        COPIES.iter().find_map(|name| {
            let path = folder.join(name);
            let flat = tern_engine::load_model(&path, self.layout.parameters()).ok()?;
            Some(Codec::full(&flat)).filter(|bytes| Digest::of(bytes) == *digest)
        })
    }

    /// Ternary codes of what clients' model lacks of the server's, and clients' next model. What
    /// the codes leave is in the next difference again (error feedback).
    pub fn difference(
        &self,
        round: u32,
        model: &[f32],
        public: &[f32],
    ) -> Result<(Vec<u8>, Vec<f32>)> {
        let ahead: Vec<f32> = model.iter().zip(public).map(|(a, b)| a - b).collect();
        let scales = Scales::Own(self.plan.updates.ternary);
        let key = [round, u32::MAX, self.plan.seed];
        let (body, _) = self.codec.ternary(&ahead, &vec![0.0; ahead.len()], scales, key)?;
        let values = add_difference(&self.layout, public, &body)?;
        Ok((body, values))
    }

    fn state(&self, head: &Head) -> Result<StrategyState> {
        let Some(digest) = &head.state else { return Ok(StrategyState::default()) };
        let path = self.bodies.name(digest);
        StrategyState::from_bytes(&self.body(digest)?)
            .ok_or_else(|| Error::file(&path, "is no state of a strategy"))
    }
}

/// Files that hold copies of models, for people.
pub(super) const COPIES: [&str; 2] = ["model.safetensors", "best.safetensors"];

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
    uploads: Vec<(ClientId, Counted)>,
    unmasking: Option<(Masking, Unmasking)>,
    total: Option<Sum>,
}

/// The model of a round, or why there is none.
pub struct Aggregated {
    pub(super) turn: Turn,
    pub(super) made: Made,
}

/// What came of an aggregation.
pub(super) enum Made {
    Head(Head),
    /// The stored updates of these clients are damaged.
    Lost(Vec<ClientId>),
}

impl Aggregation {
    pub(super) fn new(
        context: Arc<Context>,
        coordinator: &Coordinator,
        total: Option<Sum>,
    ) -> Self {
        let uploads = coordinator.accepted().map(|(client, upload)| (*client, upload.into()));
        Aggregation {
            turn: coordinator.turn(),
            head: coordinator.head().clone(),
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
            None => {
                match self.context.folding.fold(&*self.context.bodies, self.turn, &self.uploads)? {
                    Ok(total) => total,
                    Err(lost) => {
                        return Ok(Aggregated { turn: self.turn, made: Made::Lost(lost) });
                    }
                }
            }
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
        let stored = context.bodies.put(&Codec::full(&model))?;
        let (public, difference) = match context.plan.updates.downlink {
            Encoding::Ternary => {
                let public = context.model(&self.head.public)?;
                let (body, values) = context.difference(self.turn.round, &model, &public)?;
                let difference = context.bodies.put(&body)?;
                model = values;
                (context.bodies.put(&Codec::full(&model))?, Some(difference))
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
            false => Some(context.bodies.put(&state.to_bytes())?),
        };
        let head = Head { model: stored, public, difference, state, scales, metrics, training };
        Ok(Aggregated { turn: self.turn, made: Made::Head(head) })
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
        let weight: u64 = self.uploads.iter().map(|(_, u)| u64::from(u.weight)).sum();
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
}
