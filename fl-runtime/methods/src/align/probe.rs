//! What a model makes of samples: features, classes, domains. For the node itself.

use tern_engine::Arena;
use tern_engine::nn::{Mode, Predictor};
use tern_protocol::Result;

use super::Model;

/// Rows at once.
const ROWS: usize = 256;

/// A forward pass over samples from the host.
pub(super) struct Probe(Predictor);

/// What [`Probe::run`] gives, row by row.
pub(super) struct Probed {
    pub features: Vec<f32>,
    pub logits: Vec<f32>,
    pub domain: Vec<f32>,
}

impl Probe {
    pub fn new(arena: &Arena, model: &Model) -> Result<Self> {
        let (inputs, model) = (model.inputs(), model.clone());
        let predictor = Predictor::record(arena, inputs, ROWS, move |graph, samples| {
            let features = model.extract(graph, samples, Mode::Evaluate)?;
            let logits = model.classify(graph, features, Mode::Evaluate)?;
            let seen = model.seen(graph, features, logits)?;
            let domain = model.discriminate(graph, seen, Mode::Evaluate)?;
            Ok(vec![features, logits, domain])
        });
        Ok(Probe(predictor?))
    }

    /// Of samples, a row each, by the arena's parameters.
    pub fn run(&mut self, samples: &[f32]) -> Result<Probed> {
        let mut outputs = self.0.outputs(samples)?.into_iter();
        let mut next = || outputs.next().unwrap_or_default();
        Ok(Probed { features: next(), logits: next(), domain: next() })
    }
}
