//! What a client does with its data: the trait of the protocol, and its trainer on the engine.

mod engine;
mod record;

pub use engine::EngineTrainer;
pub use record::LocalData;
pub(crate) use record::{EVALUATION_BATCH, Recorder, evaluation_metrics, state_record};
pub use tern_protocol::trainer::*;
