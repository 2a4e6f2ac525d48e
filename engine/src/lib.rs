//! Tern's engine: record a model once, replay it on any GPU or on the CPU.

mod arena;
mod backward;
mod checkpoint;
mod cpu;
mod dataset;
mod device;
mod error;
mod graph;
pub mod kernels;
mod memory;
pub mod nn;
mod parameters;
mod pass;
mod plan;
mod record;
mod train;

pub use arena::{Arena, Flat};
pub use backward::Backward;
#[cfg(feature = "blocking")]
pub use checkpoint::{load_checkpoint, save_checkpoint};
pub use checkpoint::{load_checkpoint_async, load_model, save_checkpoint_async, save_model};
pub use dataset::{Batching, IGNORE, RowData, TextData};
pub use device::{
    AdapterSummary, Data, Device, DeviceOptions, Kind, Profile, Select, Timing, adapters,
};
pub use error::{Error, Result};
pub use graph::{Graph, Operand, Tensor};
pub use memory::Memory;
pub use parameters::{ALIGNMENT, Init, Param, Parameters};
pub use pass::{Pass, Vector};
pub use plan::{Activations, Losses, Plan};
pub use record::Trainable;
pub use tern_shaders::schedule::{Decay, Schedule};
pub use tern_shaders::{Activation, Element};
pub use train::{Optimizer, Training};
