//! Tern's engine: record a model once, replay it on any GPU or on the CPU.

mod arena;
mod backward;
mod cpu;
mod device;
mod error;
mod graph;
pub mod kernels;
mod memory;
mod parameters;
mod pass;
mod plan;
mod record;

pub use arena::{Arena, Flat};
pub use backward::Backward;
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
pub use tern_shaders::{Activation, Element};
