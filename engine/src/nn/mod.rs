//! Layers, models described by data, training loops and predictions.

mod config;
mod fit;
mod layers;
mod predict;
mod spec;
mod text;

pub use config::{Conv2dConfig, LinearConfig, LstmConfig};
pub use fit::{Epoch, Fit, Stop};
pub use layers::{Conv2d, Dropout, Embedding, LayerNorm, Linear, Lstm, Mode, RmsNorm};
pub use predict::Predictor;
pub use spec::{Forward, Input, LayerSpec, Model, ModelSpec};
pub use text::{Next, TextPredictor, TextState};
