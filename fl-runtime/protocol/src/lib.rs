//! The protocol of federated training: who says what to whom, and what follows from it.
//!
//! Both sides are state machines without I/O: a [`coordinator::Coordinator`] for the server, a
//! [`participant::Participant`] for each client. Whoever drives them brings the network, the
//! disk, threads and the time; a simulation, a test and a server drive the same code. Nothing
//! here opens a socket or a file, starts a thread or reads a clock.
//!
//! - A run is configured by a [`RunPlan`], from which the [`Layout`] of the model follows.
//! - Messages are those of [`wire`]; requests are signed by an [`identity::Identity`] ([`auth`]).
//! - Updates are coded by [`update`], added up by [`Total`] and applied by a [`Strategy`]; secure
//!   rounds run [`tern_secagg`] between the two state machines.

mod aggregate;
pub mod auth;
pub mod coordinator;
mod error;
pub mod hex;
mod id;
pub mod identity;
pub mod layout;
mod masking;
pub mod metrics;
pub mod participant;
pub mod partition;
pub mod plan;
pub mod strategy;
pub mod trainer;
pub mod update;
#[rustfmt::skip]
pub mod wire;

pub use aggregate::Total;
pub use error::{Aborted, Breach, Cause, Error, Refusal, Result};
pub use id::{ClientId, Digest, Millis, ParseIdError, RunId, Turn};
pub use layout::Layout;
pub use masking::{Code, Masking};
pub use plan::{RunPlan, TaskSpec};
pub use strategy::{Strategy, StrategyState};
