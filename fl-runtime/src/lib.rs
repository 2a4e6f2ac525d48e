//! Federated training on Tern's engine: clients train on data that never leaves them, a server
//! adds up their updates, round by round.
//!
//! Both sides are state machines without I/O ([`coordinator::Coordinator`],
//! [`participant::Participant`]), which the network, the simulation and the tests drive alike.
//! [`federation::Federation`] is the server without its network: a coordinator that remembers
//! everything on disk; [`local::run`] drives it with clients in the same process.

pub mod align;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
#[cfg(all(feature = "client", feature = "server"))]
pub mod config;
pub mod data;
#[cfg(feature = "server")]
pub mod federation;
pub mod key_file;
#[cfg(feature = "server")]
pub mod local;
pub mod personalize;
pub mod plot;
#[cfg(feature = "server")]
pub mod server;
pub mod simulate;
pub mod store;
pub mod teach;
#[cfg(any(feature = "client", feature = "server"))]
pub mod tls;
pub mod trainer;

pub(crate) use tern_protocol::hex;
pub use tern_protocol::{
    ClientId, Code, Digest, Error, Layout, Masking, Millis, ParseIdError, Refusal, Result, RunId,
    RunPlan, Strategy, StrategyState, TaskSpec, Total, Turn,
};
pub use tern_protocol::{
    auth, coordinator, identity, layout, metrics, participant, plan, strategy, update, wire,
};
pub use tern_secagg as secagg;
