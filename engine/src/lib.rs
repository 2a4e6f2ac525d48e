//! Tern's engine: record a model once, replay it on any GPU or on the CPU.
//!
//! A model is described by data ([`nn::ModelSpec`]) or composed of layers; its parameters are
//! one flat vector on the device (an [`Arena`], of one model or of many replicas). Ops record
//! kernel calls and their backward into a [`Graph`], which becomes a [`Plan`]: a fixed sequence
//! of dispatches that is replayed without anything being allocated or sent from the CPU.
//!
//! ```
//! use tern_engine::nn::{Mode, ModelSpec};
//! use tern_engine::{Arena, Batching, Device, Graph, Optimizer, TextData, Training, TextWindows};
//!
//! # fn main() -> tern_engine::Result<()> {
//! // The best device there is, or the one that TERN_DEVICE names.
//! let device = Device::from_env()?;
//!
//! // A text as tokens, cut into windows of 16; it stays on the device.
//! let tokens: Vec<u32> = (0..2_000).map(|i| i * i / 7 % 20).collect();
//! let text = TextData::upload(&device, &[tokens], TextWindows::new(20, 16))?;
//!
//! // Embedding, LSTM and output layer, one model started from seed 1.
//! let (parameters, model) = ModelSpec::language_model(20, 8, 32, 1).build()?;
//! let arena = Arena::new(&device, &parameters, &[1])?;
//!
//! // Recorded once: batch, forward, loss, backward, Adam.
//! let mut graph = Graph::new(&arena);
//! let (inputs, targets) = graph.text_batch(&text, &Batching::shuffled(8))?;
//! let logits = model.forward(&mut graph, inputs, Mode::Train)?.output;
//! let loss = graph.cross_entropy(logits, targets)?;
//! let mut plan = graph.train(loss, &Training::new(Optimizer::adam(), 5e-3))?;
//! println!("{} bytes on {}", plan.memory().total(), device.name());
//!
//! // Replayed.
//! let losses = plan.run(60)?;
//! let (first, last) = (losses.by_replica[0][0], losses.last().unwrap_or(f32::NAN));
//! assert!(last < 0.8 * first, "{first} to {last}");
//! # Ok(())
//! # }
//! ```
//!
//! The CPU computes every plan, too ([`Device::cpu`]), by fast functions where they exist and
//! by the kernels' references elsewhere; [`Device::reference_f64`] computes it in `f64`.
//!
//! # Features
//!
//! - `gpu` (on by default): GPUs, through wgpu. Without it there is the CPU alone, and neither
//!   wgpu nor naga is built.
//! - `blocking` (on by default): calls that wait on the calling thread. Those whose names end in
//!   `_async` are the core.

mod arena;
mod backward;
mod cache;
mod checkpoint;
mod cpu;
mod dataset;
mod device;
mod error;
mod graph;
pub mod guide;
mod interrupt;
#[cfg(feature = "blocking")]
pub mod loader;
mod memory;
pub mod nn;
pub mod ops;
mod parameters;
mod pass;
mod plan;
mod recompute;
mod record;
mod selftest;
mod train;
mod tuning;
mod weights;

pub use arena::{Arena, Flat};
pub use backward::Backward;
#[cfg(feature = "blocking")]
pub use checkpoint::{load_checkpoint, save_checkpoint};
pub use checkpoint::{load_checkpoint_async, save_checkpoint_async, save_model, serialize_model};
pub use cpu::isa::Isa;
pub use dataset::{Batching, IGNORE, RowData, TextData, TextWindows, targets};
pub use device::{
    AdapterSummary, Data, Device, DeviceOptions, Kind, Profile, Select, Timing, adapters,
};
pub use error::{Cause, Error, Result};
pub use graph::{Graph, Operand, Tensor};
pub use interrupt::Interrupt;
pub use memory::Memory;
pub use ops::half::Precision;
pub use parameters::{ALIGNMENT, Init, Param, Parameters};
pub use pass::{Pass, Vector};
pub use plan::{Activations, Losses, NotFinite, Plan};
pub use record::Trainable;
pub use selftest::{Outcome, SelfTest};
pub use tern_shaders::schedule::{Decay, Schedule};
pub use tern_shaders::{Activation, Element};
pub use train::{LossScale, Names, Optimizer, ParameterGroup, Training};
pub use tuning::{Choice, Source, Tuning};
pub use weights::{LoadOptions, LoadReport, deserialize_model, load_model, load_weights};
