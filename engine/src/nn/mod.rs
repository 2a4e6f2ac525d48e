//! Layers, models described by data, and training loops.

mod fit;
mod layers;
mod spec;

pub use fit::{Epoch, Fit, Stop};
pub use layers::{Conv2d, Dropout, Embedding, LayerNorm, Linear, Lstm, Mode};
pub use spec::{Forward, Input, LayerSpec, Model, ModelSpec};
