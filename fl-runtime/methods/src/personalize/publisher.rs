//! The server's part: public models by version, and the service that clients download them from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tern_protocol::{ClientId, Digest, Error, Result};
use tern_server::http::{Service, ServiceError};

use super::{Ask, Offer, PIECE, Public, SERVICE};

/// Versions that stay, so that a download that has begun can end.
const VERSIONS: usize = 2;

/// Public models for whoever asks. A client tells it which version it has and which piece of a
/// newer one it wants, and nothing else.
#[derive(Default)]
pub struct Publisher {
    models: Mutex<BTreeMap<u32, Published>>,
}

struct Published {
    bytes: Vec<u8>,
    offer: Offer,
    downloads: u64,
}

impl Publisher {
    /// Nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Publishes a model; the one before it stays for those who are downloading it.
    ///
    /// # Errors
    /// [`Error::Value`] unless its version is above those before; as [`Public::parameters`].
    pub fn publish(&self, public: &Public) -> Result<()> {
        public.parameters()?;
        let bytes = public.encode()?;
        let digest = Digest::of(&bytes).to_string();
        let offer = Offer { version: public.version, bytes: bytes.len() as u64, digest };
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, _)) = models.last_key_value().filter(|(v, _)| **v >= public.version) {
            let expected = format!("above {last}");
            return Err(Error::value("version of a public model", public.version, expected));
        }
        models.insert(public.version, Published { bytes, offer, downloads: 0 });
        while models.len() > VERSIONS {
            models.pop_first();
        }
        Ok(())
    }

    /// How often a version was downloaded to its end; 0 for one that isn't there.
    pub fn downloads(&self, version: u32) -> u64 {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.get(&version).map_or(0, |published| published.downloads)
    }
}

impl Service for Publisher {
    fn name(&self) -> &str {
        SERVICE
    }

    fn answer(&self, _: &ClientId, request: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let refused = |name, reason: String| Err(ServiceError::Refused { name, reason });
        let ask = match serde_json::from_slice(request) {
            Ok(ask) => ask,
            Err(error) => return refused("malformed", error.to_string()),
        };
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        match ask {
            Ask::Newest { after } => {
                let newest = models.last_key_value().filter(|(version, _)| **version > after);
                serde_json::to_vec(&newest.map(|(_, published)| &published.offer))
                    .map_err(|error| ServiceError::Failed(error.to_string()))
            }
            Ask::Piece { version, offset } => {
                let Some(published) = models.get_mut(&version) else {
                    return refused("no_version", format!("there is no version {version}"));
                };
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                match published.bytes.get(from..) {
                    Some(rest) => {
                        published.downloads += u64::from(rest.len() <= PIECE);
                        Ok(rest[..rest.len().min(PIECE)].to_vec())
                    }
                    None => refused("offset", format!("{offset} is past the end")),
                }
            }
        }
    }
}
