//! What a model makes of samples: features, classes, domains. For the node itself.

use tern_engine::nn::Mode;
use tern_engine::{Arena, Data, Element, Graph, Plan, Tensor};
use tern_protocol::{Error, Result};

use super::Model;

/// Rows at once.
const ROWS: usize = 256;

/// A forward pass over samples from the host.
pub(super) struct Probe {
    plan: Plan,
    input: Tensor,
    inputs: usize,
    features: Tensor,
    logits: Tensor,
    domain: Tensor,
}

/// What [`Probe::run`] gives, row by row.
pub(super) struct Probed {
    pub features: Vec<f32>,
    pub logits: Vec<f32>,
    pub domain: Vec<f32>,
}

impl Probe {
    pub fn new(arena: &Arena, model: &Model) -> Result<Self> {
        let mut graph = Graph::new(arena);
        let inputs = model.inputs();
        let input = graph.input("samples", &[ROWS, inputs], Element::F32);
        let features = model.extract(&mut graph, input, Mode::Evaluate)?;
        let logits = model.classify(&mut graph, features, Mode::Evaluate)?;
        let seen = model.seen(&mut graph, features, logits)?;
        let domain = model.discriminate(&mut graph, seen, Mode::Evaluate)?;
        let [features, logits, domain] = [features, logits, domain].map(|t| graph.keep(t));
        Ok(Probe { plan: graph.forward()?, input, inputs, features, logits, domain })
    }

    /// Of samples, a row each, by the arena's parameters.
    pub fn run(&mut self, samples: &[f32]) -> Result<Probed> {
        if samples.is_empty() || !samples.len().is_multiple_of(self.inputs) {
            let expected = format!("rows of {} numbers, at least one", self.inputs);
            return Err(Error::value("numbers of the samples", samples.len(), expected));
        }
        let mut probed = Probed { features: Vec::new(), logits: Vec::new(), domain: Vec::new() };
        for rows in samples.chunks(ROWS * self.inputs) {
            let mut block = rows.to_vec();
            block.resize(ROWS * self.inputs, 0.0);
            self.plan.write(self.input, &Data::F32(block))?;
            self.plan.run(1)?;
            let count = rows.len() / self.inputs;
            for (tensor, out) in [
                (self.features, &mut probed.features),
                (self.logits, &mut probed.logits),
                (self.domain, &mut probed.domain),
            ] {
                if let Data::F32(values) = self.plan.read(tensor)? {
                    out.extend_from_slice(&values[..values.len() / ROWS * count]);
                }
            }
        }
        Ok(probed)
    }
}
