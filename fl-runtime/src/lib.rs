//! Federated training on Tern's engine: clients train on data that never leaves them, a server
//! adds up their updates, round by round.
//!
//! Both sides are state machines without I/O ([`coordinator::Coordinator`],
//! [`participant::Participant`]), which the network, the simulation and the tests drive alike.
//! [`federation::Federation`] is the server without its network: a coordinator that remembers
//! everything on disk; [`local::run`] drives it with clients in the same process.

pub mod align;
pub mod auth;
#[cfg(feature = "client")]
pub mod client;
#[cfg(all(feature = "client", feature = "server"))]
pub mod config;
pub mod coordinator;
pub mod data;
mod error;
#[cfg(feature = "server")]
pub mod federation;
mod fold;
mod hex;
mod id;
pub mod identity;
pub mod layout;
#[cfg(feature = "server")]
pub mod local;
mod masking;
pub mod participant;
pub mod personalize;
pub mod plan;
pub mod plot;
#[cfg(feature = "server")]
pub mod server;
pub mod simulate;
pub mod store;
pub mod strategy;
pub mod teach;
#[cfg(any(feature = "client", feature = "server"))]
pub mod tls;
pub mod trainer;
pub mod update;
#[rustfmt::skip]
pub mod wire;

pub use error::{Error, Refusal, Result};
pub use fold::Total;
pub use id::{ClientId, Digest, Millis, ParseIdError, RunId, Turn};
pub use layout::Layout;
pub use masking::{Code, Masking};
pub use plan::{RunPlan, TaskSpec};
pub use strategy::{Strategy, StrategyState};
pub use tern_secagg as secagg;
