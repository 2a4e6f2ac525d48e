//! Layers, models described by data, training loops and predictions.

mod fit;
mod layers;
mod predict;
mod spec;
mod text;

pub use fit::{Epoch, Fit, Stop};
pub use layers::{Conv2d, Dropout, Embedding, LayerNorm, Linear, Lstm, Mode};
pub use predict::Predictor;
pub use spec::{Forward, Input, LayerSpec, Model, ModelSpec};
pub use text::{Next, TextPredictor, TextState};
