//! Personal models on users' devices (DeepType: Xu et al. 2018, "On-Device Deep Learning Service
//! with Minimal Privacy Concern", IMWUT 2(4)).
//!
//! A server trains a [`Public`] model on public data and publishes it, by version: [`Publisher`]
//! is the service, [`download`] the client's call ([`Download`] without its network). Each device is a [`Client`]: it predicts with
//! the model in use, records the input, the prediction and what really came, and trains on its
//! records once the preset number is reached. The customized model is adopted only if it does
//! better on records held back. A newer public model is merged with the personal change, under
//! the same condition. No record leaves the device: a client sends which version it has. Model and
//! records outlive the device's process in a file ([`Client::save`]).
//!
//! **Reuse of prediction results.** The forward pass that makes a prediction is the one that
//! training would compute, so its activations are kept with the record, and training runs
//! backward from them ([`Reuse`]). While the weights are those of the prediction this is exact:
//! the gradient has the same bits. Allowed a few updates more, it is an approximation, which
//! saves more. A [`Learner`] has the passes one by one, for a schedule of one's own: an update
//! after each batch as it comes, say, is exact throughout.
//!
//! **Weak devices** train the last layers alone ([`Recipe::trainable`]): the backward pass ends
//! there.
//!
//! ```
//! use std::sync::Arc;
//! use tern_engine::{Data, Device, Schedule, nn::ModelSpec};
//! use tern_methods::personalize::{Client, Public, Recipe, Reuse, Shape};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let model = ModelSpec::mlp(2, &[16], 4);
//! let weights = model.build()?.0.initial(1);
//! let public = Arc::new(Public { version: 1, model, note: String::new(), weights });
//! let recipe = Recipe {
//!     schedule: Schedule::constant(0.03),
//!     passes: 20,
//!     reuse: Reuse::Within(2),
//!     ..Recipe::default()
//! };
//! // Batches of 8 points; training starts at 64 of them.
//! let shape = Shape { rows: 8, length: 1 };
//! let mut client = Client::new(&Device::cpu(), &public, shape, &recipe, 64)?;
//! while !client.is_ready() {
//!     let points: Vec<f32> = (0..16).map(|i| ((i * i + i) % 5) as f32 - 2.0).collect();
//!     let seen = client.predict(Data::F32(points.clone()))?;
//!     assert_eq!(seen.len(), 8 * 3, "the three most probable classes of each");
//!     // This user wants the quadrant.
//!     let typed = points.chunks(2).map(|p| u32::from(p[0] > 0.0) + 2 * u32::from(p[1] > 0.0));
//!     client.observe(typed.collect())?;
//! }
//! let round = client.customize(&mut || {})?.expect("it was ready");
//! assert!(round.adopted && round.loss_after < 0.5 * round.loss_before);
//! # Ok(())
//! # }
//! ```

mod batch;
mod bytes;
mod client;
#[cfg(feature = "client")]
mod download;
mod learner;
mod personal;
mod public;
#[cfg(feature = "server")]
mod publisher;
mod saved;
mod score;
#[cfg(test)]
mod tests;

#[cfg(any(feature = "client", feature = "server"))]
use serde::{Deserialize, Serialize};

pub use batch::{Batch, Shape};
pub use client::{Client, Round};
#[cfg(feature = "client")]
pub use download::{Download, DownloadError, Downloaded, download};
pub use learner::{KeptActivations, Learner, Recipe, Reuse, TrainingCost};
pub use personal::{Merge, Personal};
pub use public::Public;
#[cfg(feature = "server")]
pub use publisher::Publisher;
pub use score::{Score, Scorer, TOP};

/// Name of the service that public models are downloaded from.
pub const SERVICE: &str = "public-model";

/// Bytes of a piece of a model, at most.
#[cfg(feature = "server")]
const PIECE: usize = 1 << 20;

/// All that a client sends.
#[cfg(any(feature = "client", feature = "server"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Ask {
    /// The newest model above a version.
    Newest { after: u32 },
    /// Bytes of a version, from an offset on.
    Piece { version: u32, offset: u64 },
}

/// A newer version that is there.
#[cfg(any(feature = "client", feature = "server"))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    version: u32,
    bytes: u64,
    /// SHA-256 of the bytes.
    digest: String,
}
