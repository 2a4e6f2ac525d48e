//! Layers, models described by data, training loops and predictions.
//!
//! ```
//! use tern_engine::nn::{ModelSpec, Predictor};
//! use tern_engine::{Arena, Device};
//!
//! # fn main() -> tern_engine::Result<()> {
//! // Four features, a hidden layer of eight, three classes: two layers of weight and bias.
//! let (parameters, model) = ModelSpec::mlp(4, &[8], 3).build()?;
//! assert_eq!(parameters.iter().map(|p| p.len()).sum::<usize>(), 4 * 8 + 8 + 8 * 3 + 3);
//!
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut predictor = Predictor::new(&arena, &model, 16)?;
//! // Two samples, a logit a class for each.
//! # #[cfg(feature = "blocking")]
//! assert_eq!(predictor.predict(&[0.5; 2 * 4])?.len(), 2 * 3);
//! # Ok(())
//! # }
//! ```

mod config;
mod convolution;
mod decoder;
mod fit;
mod generate;
mod layers;
mod llama;
mod lora;
mod model;
mod norms;
mod predict;
mod presets;
mod recurrent;
mod sampler;
mod spec;
mod text;

pub use config::{GruConfig, LinearConfig, LstmConfig, Pixels};
pub use convolution::{Conv2d, Conv2dConfig, ConvTranspose2d};
pub use decoder::{CausalSelfAttention, Decoder, DecoderConfig, SwiGlu, TransformerBlock};
pub use fit::{Epoch, Fit, Stop};
pub use generate::Generator;
pub use layers::{Dropout, Embedding, LayerNorm, Linear, Mode, RmsNorm};
pub use lora::{LORA, LoraConfig};
pub use model::{Forward, Model};
pub use norms::{BasicBlock, BatchNorm, GroupNorm};
pub use predict::Predictor;
pub use recurrent::{Gru, Lstm};
pub use sampler::Sampler;
pub use spec::{Input, LayerSpec, ModelSpec};
pub use text::{Next, TextPredictor, TextState};
