//! Federated training on Tern's engine: clients train on data that never leaves them, a server
//! adds up their updates, round by round.
//!
//! Where to begin:
//!
//! - [`RunPlan`] says all about a run: model, cohorts, training, updates, strategy, secure
//!   aggregation.
//! - `simulate::Simulation` runs it on one device, with clients side by side.
//! - `server::local::run` runs it with trainers of one's own in one process, the whole protocol
//!   included; `server::http::Server` serves it to a `client::Client` on each device.
//! - `methods` are learning methods beyond: private labels, personal models, transfer.
//!
//! This crate gathers those that it is made of, each behind a feature of its name:
//!
//! | module | crate | feature |
//! |---|---|---|
//! | here | `tern-protocol`: plans, updates, both sides as state machines | |
//! | [`secagg`] | `tern-secagg`: secure aggregation | |
//! | [`host`] | `tern-host`: files, keys, certificates, the time | |
//! | `client` | `tern-client` | `client` |
//! | `server` | `tern-server`: federations, in one process | `local` |
//! | `server::http` | `tern-server`, over the network | `server` |
//! | `fleet` | `tern-fleet`: federations on PostgreSQL and an object store | `fleet` |
//! | `simulate` | `tern-simulate` | `simulate`, `files` |
//! | `methods` | `tern-methods` | `methods` |
//!
//! `gpu` is the engine's: without it there is the CPU alone, and no driver is linked. `cli` is
//! the `tern` command; [`data`] and `config` are what it reads.
//!
//! ```
//! use tern_engine::nn::ModelSpec;
//! use tern_fl::{RunPlan, StrategyState, Total, layout::ModelKind};
//!
//! # fn main() -> tern_fl::Result<()> {
//! let plan = RunPlan::new("signs", ModelKind::Layers(ModelSpec::mlp(1, &[], 2)), 20);
//! let layout = plan.check()?;
//!
//! // What a server does with two updates, of 10 and of 30 samples.
//! let mut total = Total::new(layout.elements(), plan.fraction_bits());
//! for (step, samples) in [(1.0, 10), (3.0, 30)] {
//!     total.begin(samples);
//!     total.add(0, &vec![step; layout.elements()], samples);
//! }
//! let mut model = vec![0.0; layout.elements()];
//! let strategy = plan.strategy.build(None)?;
//! strategy.step(&mut model, &total.mean(), &mut StrategyState::default());
//! assert_eq!(model[0], 2.5);
//! # Ok(())
//! # }
//! ```

#[cfg(all(feature = "client", feature = "server"))]
pub mod config;
pub mod data;

#[cfg(feature = "client")]
pub use tern_client as client;
#[cfg(feature = "fleet")]
pub use tern_fleet as fleet;
pub use tern_host as host;
#[cfg(feature = "methods")]
pub use tern_methods as methods;
pub use tern_protocol::{
    Aborted, Breach, Cause, ClientId, Code, Digest, Ended, Error, Layout, Masking, Millis,
    ParseIdError, Refusal, Result, RunId, RunPlan, Salt, StartId, Strategy, StrategyState,
    TaskSpec, Total, Turn,
};
pub use tern_protocol::{
    auth, coordinator, hex, identity, layout, metrics, pace, participant, partition, plan, schema,
    strategy, tokens, trainer, update, wire,
};
pub use tern_secagg as secagg;
#[cfg(feature = "local")]
pub use tern_server as server;
#[cfg(feature = "simulate")]
pub use tern_simulate as simulate;
