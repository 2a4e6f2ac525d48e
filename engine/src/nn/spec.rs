//! Models described by data: a server sends the description, every device builds the same.

use serde::{Deserialize, Serialize};
use tern_shaders::Activation;

use super::convolution::moved;
use super::decoder::DEVIATION;
use super::layers::check_dropout;
use super::model::{Layer, Model};
use super::{
    BasicBlock, BatchNorm, Conv2d, Conv2dConfig, ConvTranspose2d, Decoder, DecoderConfig, Dropout,
    Embedding, GroupNorm, Gru, GruConfig, LayerNorm, Linear, LinearConfig, Lstm, LstmConfig,
    Pixels, RmsNorm,
};
use crate::ops::convolution::Window;
use crate::{Error, Init, Param, Parameters, Precision, Result};

/// What a model takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Input {
    /// Tokens below `vocabulary`, `[T, B]`.
    Tokens {
        /// Number of different tokens.
        vocabulary: usize,
    },
    /// Floats, `[B, width]`.
    Features {
        /// Floats a sample.
        width: usize,
    },
    /// Images, `[B, channels · height · width]`, read as `[B, channels, height, width]`.
    Image {
        /// Channels.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

impl Input {
    /// Floats of a sample of features or of an image; `None` for tokens.
    pub fn floats(self) -> Option<usize> {
        match self {
            Input::Tokens { .. } => None,
            Input::Features { width } => Some(width),
            Input::Image { channels, height, width } => Some(channels * height * width),
        }
    }
}

/// A layer of a [`ModelSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum LayerSpec {
    /// [`Embedding`].
    Embedding {
        /// Length of the vectors.
        dimension: usize,
    },
    /// [`Lstm`].
    Lstm {
        /// Hidden units a layer.
        hidden: usize,
        /// Layers.
        layers: usize,
        /// Coupled input and forget gates.
        #[serde(default)]
        coupled: bool,
        /// Dropout between layers.
        #[serde(default)]
        dropout: f32,
        /// Both directions of each layer; the forward one alone if nothing is said.
        #[serde(default, skip_serializing_if = "is_no")]
        bidirectional: bool,
        /// Floats that a step of each layer puts out, projections of its units; the units themselves if
        /// nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        projection: Option<usize>,
    },
    /// [`Gru`].
    Gru {
        /// Hidden units a layer.
        hidden: usize,
        /// Layers.
        layers: usize,
        /// Dropout between layers.
        #[serde(default)]
        dropout: f32,
        /// Both directions of each layer; the forward one alone if nothing is said.
        #[serde(default, skip_serializing_if = "is_no")]
        bidirectional: bool,
    },
    /// [`Linear`] with a bias.
    Linear {
        /// Outputs.
        outputs: usize,
        /// Applied to the outputs.
        #[serde(default, with = "activation_name")]
        activation: Activation,
    },
    /// [`Conv2d`].
    Conv2d(Conv2dConfig),
    /// [`ConvTranspose2d`].
    ConvTranspose2d(Conv2dConfig),
    /// Maximum over windows of the image.
    MaxPool2d {
        /// Of a window.
        kernel: Pixels,
        /// From one window to the next.
        stride: Pixels,
        /// Around the image: pixels that are never the largest; none if nothing is said.
        #[serde(default, skip_serializing_if = "is_none")]
        padding: Pixels,
    },
    /// Mean over windows of the image.
    AveragePool2d {
        /// Of a window.
        kernel: Pixels,
        /// From one window to the next.
        stride: Pixels,
        /// Zeros put around the image, which count in the means; none if nothing is said.
        #[serde(default, skip_serializing_if = "is_none")]
        padding: Pixels,
    },
    /// `[B, C, H, W]` to `[B, C · H · W]`.
    Flatten,
    /// `[B, C, H, W]` to `[B, C]`: the mean of each channel.
    GlobalAveragePool,
    /// An activation on its own, after a norm say.
    Activation {
        /// Which one.
        #[serde(with = "activation_name")]
        kind: Activation,
    },
    /// [`BatchNorm`] of the channels of images, or of features.
    BatchNorm,
    /// [`GroupNorm`] of the channels of images, or of features.
    GroupNorm {
        /// Groups of channels.
        groups: usize,
    },
    /// [`BasicBlock`]: two convolutions with batch norms, and what came in.
    BasicBlock {
        /// Output channels.
        outputs: usize,
        /// From one place of the first convolution to the next.
        stride: usize,
    },
    /// [`LayerNorm`] over the last dimension.
    LayerNorm,
    /// [`RmsNorm`] over the last dimension.
    RmsNorm,
    /// [`Decoder`]: transformer blocks, and a norm after the last.
    Decoder(DecoderConfig),
    /// A logit for each token of the vocabulary, [`Linear`] without a bias.
    LanguageModelHead {
        /// By the table of the model's embedding instead of a matrix of its own.
        tied: bool,
    },
    /// [`Dropout`].
    Dropout {
        /// Probability of being dropped.
        p: f32,
    },
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn is_yes(yes: &bool) -> bool {
    *yes
}

fn is_no(yes: &bool) -> bool {
    !yes
}

pub(super) fn is_none(pixels: &Pixels) -> bool {
    *pixels == Pixels::default()
}

pub(super) mod activation_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tern_shaders::Activation;

    pub fn serialize<S: Serializer>(a: &Activation, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(a.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Activation, D::Error> {
        let text = String::deserialize(d)?;
        Activation::ALL.into_iter().find(|a| a.name() == text).ok_or_else(|| {
            let known: Vec<_> = Activation::ALL.into_iter().map(Activation::name).collect();
            D::Error::custom(format!("activation `{text}`, expected one of {}", known.join(", ")))
        })
    }
}

/// A model as data: its input and its layers, each with the name its parameters start with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// What it takes in.
    pub input: Input,
    /// Names and layers, in order.
    pub layers: Vec<(String, LayerSpec)>,
}

impl ModelSpec {
    /// Whether some of its parameters are running moments, which are averaged and have no gradients.
    pub fn has_running_moments(&self) -> bool {
        let running = |layer: &LayerSpec| {
            matches!(layer, LayerSpec::BatchNorm | LayerSpec::BasicBlock { .. })
        };
        self.layers.iter().any(|(_, layer)| running(layer))
    }

    /// Registers the model's parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] where a layer can't take what the one before it gives, naming it;
    /// [`Error::Value`] for a name used twice.
    pub fn build(&self) -> Result<(Parameters, Model)> {
        let mut parameters = Parameters::new();
        let model = self.register(&mut parameters, "")?;
        Ok((parameters, model))
    }

    /// Registers the model's parameters beside others, under `prefix`.
    ///
    /// # Errors
    /// As [`ModelSpec::build`].
    pub fn register(&self, parameters: &mut Parameters, prefix: &str) -> Result<Model> {
        let form = match self.input {
            Input::Tokens { .. } => Form::Tokens,
            Input::Features { width } => Form::Vector(width),
            Input::Image { channels, height, width } => Form::Image([channels, height, width]),
        };
        let decodes = self.layers.iter().any(|(_, spec)| matches!(spec, LayerSpec::Decoder(_)));
        // A decoder's normalizes what it is given; as the matrix of logits, too, it begins small.
        let deviation = if decodes { DEVIATION } else { 1.0 };
        let mut so_far = SoFar { input: self.input, form, deviation, table: None };
        let mut layers = Vec::with_capacity(self.layers.len());
        for (name, spec) in &self.layers {
            let name = format!("{prefix}{name}");
            let layer = spec.build(parameters, &name, &mut so_far)?;
            layers.push((name, layer));
        }
        // After all others, so that they lie side by side.
        for (_, layer) in &mut layers {
            if let Layer::Decoder(decoder) = layer {
                decoder.adapt(parameters)?;
            }
        }
        let precision = Precision::Single;
        Ok(Model { input: self.input, layers, recomputes: false, precision })
    }
}

/// What passes from layer to layer, for the widths of their parameters.
#[derive(Clone, Copy, Debug)]
enum Form {
    Tokens,
    Vector(usize),
    Image([usize; 3]),
}

/// What the layers before one say about it.
struct SoFar {
    input: Input,
    form: Form,
    /// Deviation of an embedding's starting values.
    deviation: f32,
    /// The table of the last embedding, and its width.
    table: Option<(Param, usize)>,
}

impl LayerSpec {
    /// LSTM layers of one direction, without dropout, projection and coupled gates.
    pub fn lstm(hidden: usize, layers: usize) -> Self {
        LayerSpec::Lstm {
            hidden,
            layers,
            coupled: false,
            dropout: 0.0,
            bidirectional: false,
            projection: None,
        }
    }

    /// GRU layers of one direction, without dropout.
    pub fn gru(hidden: usize, layers: usize) -> Self {
        LayerSpec::Gru { hidden, layers, dropout: 0.0, bidirectional: false }
    }

    fn build(
        &self,
        parameters: &mut Parameters,
        name: &str,
        SoFar { input, form, deviation, table }: &mut SoFar,
    ) -> Result<Layer> {
        let unfit = |form: Form| {
            Err(Error::shape("model", format!("layer {name} ({self:?}) can't take {form:?}")))
        };
        // Of a sequence the first axes are none of samples and channels.
        let of_samples = !matches!(input, Input::Tokens { .. });
        Ok(match (*self, *form) {
            (LayerSpec::Embedding { dimension }, Form::Tokens) => {
                let Input::Tokens { vocabulary } = *input else { return unfit(*form) };
                *form = Form::Vector(dimension);
                let shape = [vocabulary, dimension];
                let embedding = Embedding::of_deviation(parameters, name, shape, *deviation)?;
                *table = Some((embedding.weight().clone(), dimension));
                Layer::Embedding(embedding)
            }
            (
                LayerSpec::Lstm { hidden, layers, coupled, dropout, bidirectional, projection },
                Form::Vector(width),
            ) => {
                let config = LstmConfig {
                    inputs: width,
                    hidden,
                    layers,
                    coupled,
                    dropout,
                    bidirectional,
                    projection,
                };
                let lstm = Lstm::new(parameters, name, config)?;
                *form = Form::Vector(lstm.outputs());
                Layer::Lstm(lstm)
            }
            (LayerSpec::Gru { hidden, layers, dropout, bidirectional }, Form::Vector(width)) => {
                let config = GruConfig { inputs: width, hidden, layers, dropout, bidirectional };
                let gru = Gru::new(parameters, name, config)?;
                *form = Form::Vector(gru.outputs());
                Layer::Gru(gru)
            }
            (LayerSpec::Linear { outputs, activation }, Form::Vector(width)) => {
                *form = Form::Vector(outputs);
                let config = LinearConfig::new(width, outputs).activation(activation);
                Layer::Linear(Linear::new(parameters, name, config)?)
            }
            (LayerSpec::Conv2d(config), Form::Image([channels, height, width])) => {
                let Some([h, w]) = config.moved(height, width) else { return unfit(*form) };
                *form = Form::Image([config.outputs, h, w]);
                Layer::Conv2d(Conv2d::new(parameters, name, channels, config)?)
            }
            (LayerSpec::ConvTranspose2d(config), Form::Image([channels, height, width])) => {
                let (image, extra) = ([height, width], config.output_padding.into());
                let size = config.placement().transposed(image, config.kernel.into(), extra);
                let Some([h, w]) = size else { return unfit(*form) };
                *form = Form::Image([config.outputs, h, w]);
                Layer::ConvTranspose2d(ConvTranspose2d::new(parameters, name, channels, config)?)
            }
            (
                LayerSpec::MaxPool2d { kernel, stride, padding }
                | LayerSpec::AveragePool2d { kernel, stride, padding },
                Form::Image(image),
            ) => {
                let Some([h, w]) = moved([image[1], image[2]], kernel, stride, padding) else {
                    return unfit(*form);
                };
                *form = Form::Image([image[0], h, w]);
                let window = Window { stride: stride.into(), padding: padding.into() };
                match self {
                    LayerSpec::MaxPool2d { .. } => Layer::MaxPool2d(kernel.into(), window),
                    _ => Layer::AveragePool2d(kernel.into(), window),
                }
            }
            (LayerSpec::Flatten, Form::Image([channels, height, width])) => {
                let width = channels.checked_mul(height).and_then(|rows| rows.checked_mul(width));
                let Some(width) = width else { return unfit(*form) };
                *form = Form::Vector(width);
                Layer::Flatten
            }
            (LayerSpec::GlobalAveragePool, Form::Image([channels, ..])) => {
                *form = Form::Vector(channels);
                Layer::GlobalAveragePool
            }
            (LayerSpec::Activation { kind }, Form::Vector(_) | Form::Image(_)) => {
                Layer::Activation(kind)
            }
            (LayerSpec::BatchNorm, Form::Image([channels, ..]) | Form::Vector(channels))
                if of_samples =>
            {
                Layer::BatchNorm(BatchNorm::new(parameters, name, channels)?)
            }
            (
                LayerSpec::GroupNorm { groups },
                Form::Image([channels, ..]) | Form::Vector(channels),
            ) if of_samples => {
                Layer::GroupNorm(GroupNorm::new(parameters, name, groups, channels)?)
            }
            (LayerSpec::BasicBlock { outputs, stride }, Form::Image(image)) => {
                let (kernel, padding) = (3.into(), 1.into());
                let Some([h, w]) = moved([image[1], image[2]], kernel, stride.into(), padding)
                else {
                    return unfit(*form);
                };
                *form = Form::Image([outputs, h, w]);
                let channels = [image[0], outputs];
                Layer::BasicBlock(Box::new(BasicBlock::new(parameters, name, channels, stride)?))
            }
            (LayerSpec::LayerNorm, Form::Vector(width)) => {
                Layer::LayerNorm(LayerNorm::new(parameters, name, width)?)
            }
            (LayerSpec::RmsNorm, Form::Vector(width)) => {
                Layer::RmsNorm(RmsNorm::new(parameters, name, width)?)
            }
            (LayerSpec::Decoder(config), Form::Vector(width)) => {
                Layer::Decoder(Decoder::new(parameters, name, width, config)?)
            }
            (LayerSpec::LanguageModelHead { tied }, Form::Vector(width)) => {
                let Input::Tokens { vocabulary } = *input else { return unfit(*form) };
                *form = Form::Vector(vocabulary);
                match table {
                    Some((table, dimension)) if tied && *dimension == width => {
                        Layer::TiedHead(table.clone())
                    }
                    _ if tied => return unfit(Form::Vector(width)),
                    _ => {
                        let config = LinearConfig::new(width, vocabulary).bias(false);
                        let config = config.init(Init::Normal(DEVIATION));
                        Layer::Linear(Linear::new(parameters, name, config)?)
                    }
                }
            }
            (LayerSpec::Dropout { p }, _) => {
                check_dropout(name, p)?;
                Layer::Dropout(Dropout { p })
            }
            _ => return unfit(*form),
        })
    }
}

#[cfg(test)]
mod tests;
