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
//!
//! ```
//! use tern_engine::{Device, nn::ModelSpec};
//! use tern_protocol::coordinator::{Candidate, Coordinator, Event, Head};
//! use tern_protocol::participant::{Action, Input, Participant, SavedState};
//! use tern_protocol::{Digest, Millis, RunId, RunPlan, Salt, identity::Identity, layout::ModelKind};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let mut plan = RunPlan::new("one client", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 1);
//! plan.cohort.size = 1;
//! let (run, model) = (RunId::draw()?, Digest::of(b"the first model"));
//! let mut server = Coordinator::new(plan.clone(), run, Head::initial(model, Vec::new()))?;
//! let key = Identity::generate()?;
//! let (task, device) = (plan.task(run)?, Device::cpu());
//! let mut client = Participant::new(key.signing_key(), task, &device, SavedState::default())?;
//!
//! // The client is online, so the round starts; it needs the model first.
//! let online = vec![Candidate { client: key.client(), samples: 5 }];
//! server.handle(Millis(1), Event::Start { online, salt: Salt::draw()? })?;
//! let instruction = server.instruction(&key.client());
//! let actions = client.handle(Input::Instruction(instruction))?;
//! assert_eq!(actions, [Action::Fetch(model)]);
//! # Ok(())
//! # }
//! ```

mod aggregate;
pub mod auth;
pub mod coordinator;
mod ended;
mod error;
pub mod hex;
mod id;
pub mod identity;
pub mod layout;
mod masking;
mod measured;
pub mod metrics;
pub mod pace;
pub mod participant;
pub mod partition;
pub mod plan;
pub mod schema;
pub mod strategy;
pub mod tokens;
pub mod trainer;
pub mod update;
pub mod weights;
/// What clients, servers and journals write, as protobuf.
///
/// ```
/// use prost::Message as _;
/// use tern_protocol::wire;
///
/// # fn main() -> Result<(), prost::DecodeError> {
/// let poll = wire::Poll { samples: 20, version: 7, wait: 1000, process: 0 };
/// let bytes = poll.encode_to_vec();
/// assert_eq!(bytes, [8, 20, 16, 7, 24, 232, 7]);
/// assert_eq!(wire::Poll::decode(&bytes[..])?, poll);
/// // What has its default, zero, isn't sent.
/// assert!(wire::Poll::default().encode_to_vec().is_empty());
/// # Ok(())
/// # }
/// ```
#[rustfmt::skip]
pub mod wire;

pub use aggregate::Total;
pub use ended::Ended;
pub use error::{Aborted, Breach, Cause, Error, Refusal, Result};
pub use id::{ClientId, Digest, Millis, ParseIdError, RunId, Salt, StartId, Turn};
pub use layout::Layout;
pub use masking::{Code, Masking};
pub use measured::Measured;
pub use plan::{RunPlan, TaskSpec};
pub use strategy::{Strategy, StrategyState};
