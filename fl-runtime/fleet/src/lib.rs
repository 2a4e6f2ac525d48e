//! A run that more than one machine serves: PostgreSQL for what must be decided once, an object
//! store for bytes, and processes between them that may end at any moment.
//!
//! - A [`Gateway`] answers clients. It follows the run from the database, keeps bodies in the object
//!   store under their digests, and decides with the database alone who is in an attempt.
//! - A [`leader`] holds a lease, runs the coordinator, and appends its events under the lease's
//!   epoch: one whose lease went to another can't.
//! - An [`aggregator`] adds up parts of a closed attempt. Sums are of integers: whoever adds them, in
//!   whatever order, has the bits of one machine.
//!
//! `DATA_MODEL.md` says what the tables hold, which transactions there are, and what becomes of a
//! run when each of these fails.

// Whether a federation may go to another thread is asked through all that a device has.
#![cfg_attr(test, recursion_limit = "512")]

pub mod aggregator;
mod ahead;
mod answers;
mod batch;
mod database;
mod error;
mod gateway;
pub mod leader;
mod lease;
mod ledger;
mod members;
mod migrations;
mod objects;
mod options;
mod parts;
mod presence;
mod requests;
mod shared;
mod status;
mod sweep;
#[cfg(test)]
mod tests;
mod traces;
mod wakes;

pub use database::Database;
pub use gateway::Gateway;
pub use ledger::PgLedger;
pub use members::{Outcome, Taken};
pub use migrations::VERSION;
pub use objects::Objects;
pub use options::Options;
pub use status::{FleetStatus, LeaseStatus, RoleStatus};
pub use traces::Traces;
