//! The public model: what a server publishes and clients download.

use serde::{Deserialize, Serialize};
use tern_engine::Parameters;
use tern_engine::nn::ModelSpec;
use tern_protocol::{Error, Result};

use super::bytes;

/// A published model.
#[derive(Clone, Debug, PartialEq)]
pub struct Public {
    /// Counted up with every model published.
    pub version: u32,
    /// From which every device builds the same model.
    pub model: ModelSpec,
    /// What else clients must know, an alphabet say.
    pub note: String,
    /// Parameters, a flat vector.
    pub weights: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    model: ModelSpec,
    note: String,
}

impl Public {
    /// Layout of the parameters.
    ///
    /// # Errors
    /// The engine's for layers that don't fit together; [`Error::Value`] for another number of
    /// parameters, or one that isn't finite.
    pub fn parameters(&self) -> Result<Parameters> {
        let (parameters, _) = self.model.build()?;
        if self.weights.len() != parameters.words() {
            let expected = parameters.words().to_string();
            return Err(Error::value("values of a public model", self.weights.len(), expected));
        }
        if let Some(at) = self.weights.iter().position(|x| !x.is_finite()) {
            let name = format!("value {at} of a public model");
            return Err(Error::value(name, self.weights[at], "a finite number"));
        }
        Ok(parameters)
    }

    /// As bytes: the length of a header (32 bits, little-endian), the header as JSON, and the
    /// parameters (32-bit floats, little-endian).
    ///
    /// # Errors
    /// [`Error::Value`] for layers that JSON can't say.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let Public { version, model, note, weights } = self;
        let header = Header { version: *version, model: model.clone(), note: note.clone() };
        bytes::encode("a public model", &header, weights.iter().map(|x| x.to_bits()))
    }

    /// From the bytes of [`Public::encode`].
    ///
    /// # Errors
    /// [`Error::Value`] for bytes that are no model; as [`Public::parameters`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (header, mut words) = bytes::decode("public model", "what a server published", bytes)?;
        let Header { version, model, note } = header;
        let weights = words.floats(words.len()).unwrap_or_default();
        let public = Public { version, model, note, weights };
        public.parameters()?;
        Ok(public)
    }
}
