//! The server of federated runs.
//!
//! - A [`Federation`](federation::Federation) is the server without its network: the protocol's
//!   coordinator, with a memory. What happens goes to a [`journal`] (SQLite) before anything
//!   comes of it, and bodies to files ([`blobs`]); or to other storage, by the traits of [`storage`].
//! - [`local`] drives it with clients in the same process.
//! - `http` (a feature) serves it over the network, with a dashboard, metrics and services.
//!
//! ```
//! use tern_protocol::layout::{ModelKind, TensorSpec};
//! use tern_protocol::{ClientId, Millis, RunPlan};
//! use tern_server::federation::{Federation, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let weights = TensorSpec { name: "w".into(), shape: vec![8, 8] };
//! let mut plan = RunPlan::new("weights", ModelKind::Tensors(vec![weights]), 10);
//! plan.cohort.size = 1;
//!
//! let open = || Federation::open(folder.path(), &plan, &[0.0; 64], Options::default());
//! let mut federation = open()?;
//! let client = ClientId([1; 32]);
//! federation.enroll(Millis(1), client, None)?;
//! // One client is enough: a round starts, in which it is asked for an update.
//! federation.poll(Millis(1), &client, 20)?;
//! assert_eq!(federation.status().phase, "collect");
//!
//! // After a restart it goes on.
//! drop(federation);
//! assert_eq!(open()?.status().phase, "collect");
//! # Ok(())
//! # }
//! ```

pub mod blobs;
pub mod federation;
#[cfg(feature = "http")]
pub mod http;
pub mod journal;
pub mod local;
pub mod plot;
pub mod storage;
