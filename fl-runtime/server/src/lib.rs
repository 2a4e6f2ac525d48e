//! The server of federated runs.
//!
//! - A [`Federation`](federation::Federation) is the server without its network: the protocol's
//!   coordinator, with a memory. What happens goes to a [`journal`] (SQLite) before anything
//!   comes of it, and bodies to files ([`blobs`]).
//! - [`local`] drives it with clients in the same process.
//! - `http` (a feature) serves it over the network, with a dashboard, metrics and services.

pub mod blobs;
pub mod federation;
#[cfg(feature = "http")]
pub mod http;
pub mod journal;
pub mod local;
#[cfg(feature = "plot")]
pub mod plot;
