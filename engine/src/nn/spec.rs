//! Models described by data: a server sends the description, every device builds the same.

use serde::{Deserialize, Serialize};
use tern_shaders::{Activation, Element};

use super::layers::check_dropout;
use super::{
    Conv2d, Conv2dConfig, Dropout, Embedding, LayerNorm, Linear, LinearConfig, Lstm, LstmConfig,
    Mode, Pixels, RmsNorm,
};
use crate::ops::convolution::Window;
use crate::{Error, Graph, Parameters, Result, Tensor};

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
    Conv2d {
        /// Output channels.
        outputs: usize,
        /// Of the kernel.
        kernel: Pixels,
        /// From one place of the kernel to the next.
        stride: Pixels,
        /// Zeros put around the image: above and below, left and right.
        padding: Pixels,
        /// Whether there is a bias; there is if nothing is said.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        bias: bool,
        /// Applied to the outputs.
        #[serde(default, with = "activation_name")]
        activation: Activation,
    },
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
    /// [`LayerNorm`] over the last dimension.
    LayerNorm,
    /// [`RmsNorm`] over the last dimension.
    RmsNorm,
    /// [`Dropout`].
    Dropout {
        /// Probability of being dropped.
        p: f32,
    },
}

fn yes() -> bool {
    true
}

fn is_yes(yes: &bool) -> bool {
    *yes
}

fn is_none(pixels: &Pixels) -> bool {
    *pixels == Pixels::default()
}

mod activation_name {
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
    /// A language model: `embedding`, `lstm`, `output` over the vocabulary.
    pub fn language_model(
        vocabulary: usize,
        dimension: usize,
        hidden: usize,
        layers: usize,
    ) -> Self {
        let lstm = LayerSpec::Lstm { hidden, layers, coupled: false, dropout: 0.0 };
        let output = LayerSpec::Linear { outputs: vocabulary, activation: Activation::Identity };
        ModelSpec {
            input: Input::Tokens { vocabulary },
            layers: vec![
                ("embedding".into(), LayerSpec::Embedding { dimension }),
                ("lstm".into(), lstm),
                ("output".into(), output),
            ],
        }
    }

    /// A multilayer perceptron `0`, `1`, … with ReLU between its layers.
    pub fn mlp(width: usize, hidden: &[usize], outputs: usize) -> Self {
        let last = (outputs, Activation::Identity);
        let layers = hidden.iter().map(|h| (*h, Activation::Relu)).chain([last]);
        ModelSpec {
            input: Input::Features { width },
            layers: layers
                .enumerate()
                .map(|(i, (outputs, activation))| {
                    (i.to_string(), LayerSpec::Linear { outputs, activation })
                })
                .collect(),
        }
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
        let mut form = match self.input {
            Input::Tokens { .. } => Form::Tokens,
            Input::Features { width } => Form::Vector(width),
            Input::Image { channels, height, width } => Form::Image([channels, height, width]),
        };
        let mut layers = Vec::with_capacity(self.layers.len());
        for (name, spec) in &self.layers {
            let name = format!("{prefix}{name}");
            layers.push((name.clone(), spec.build(parameters, &name, self.input, &mut form)?));
        }
        Ok(Model { input: self.input, layers })
    }
}

/// What passes from layer to layer, for the widths of their parameters.
#[derive(Clone, Copy, Debug)]
enum Form {
    Tokens,
    Vector(usize),
    Image([usize; 3]),
}

impl LayerSpec {
    fn build(
        &self,
        parameters: &mut Parameters,
        name: &str,
        input: Input,
        form: &mut Form,
    ) -> Result<Layer> {
        let unfit = |form: Form| {
            Err(Error::shape("model", format!("layer {name} ({self:?}) can't take {form:?}")))
        };
        Ok(match (*self, *form) {
            (LayerSpec::Embedding { dimension }, Form::Tokens) => {
                let Input::Tokens { vocabulary } = input else { return unfit(*form) };
                *form = Form::Vector(dimension);
                Layer::Embedding(Embedding::new(parameters, name, vocabulary, dimension)?)
            }
            (LayerSpec::Lstm { hidden, layers, coupled, dropout }, Form::Vector(width)) => {
                *form = Form::Vector(hidden);
                let config =
                    LstmConfig::new(width, hidden).layers(layers).coupled(coupled).dropout(dropout);
                Layer::Lstm(Lstm::new(parameters, name, config)?)
            }
            (LayerSpec::Linear { outputs, activation }, Form::Vector(width)) => {
                *form = Form::Vector(outputs);
                let config = LinearConfig::new(width, outputs).activation(activation);
                Layer::Linear(Linear::new(parameters, name, config)?)
            }
            (
                LayerSpec::Conv2d { outputs, kernel, stride, padding, bias, activation },
                Form::Image(image),
            ) => {
                let Some([h, w]) = moved(image, kernel, stride, padding) else {
                    return unfit(*form);
                };
                *form = Form::Image([outputs, h, w]);
                let config = Conv2dConfig::new(image[0], outputs, kernel)
                    .stride(stride)
                    .padding(padding)
                    .bias(bias);
                Layer::Conv2d(Conv2d::new(parameters, name, config)?, activation)
            }
            (
                LayerSpec::MaxPool2d { kernel, stride, padding }
                | LayerSpec::AveragePool2d { kernel, stride, padding },
                Form::Image(image),
            ) => {
                let Some([h, w]) = moved(image, kernel, stride, padding) else {
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
                *form = Form::Vector(channels * height * width);
                Layer::Flatten
            }
            (LayerSpec::LayerNorm, Form::Vector(width)) => {
                Layer::LayerNorm(LayerNorm::new(parameters, name, width)?)
            }
            (LayerSpec::RmsNorm, Form::Vector(width)) => {
                Layer::RmsNorm(RmsNorm::new(parameters, name, width)?)
            }
            (LayerSpec::Dropout { p }, _) => {
                check_dropout(name, p)?;
                Layer::Dropout(Dropout { p })
            }
            _ => return unfit(*form),
        })
    }
}

/// Height and width of what a window gives that moves over an image `[channels, height, width]`, if
/// it fits.
fn moved(
    [_, height, width]: [usize; 3],
    kernel: Pixels,
    stride: Pixels,
    padding: Pixels,
) -> Option<[usize; 2]> {
    let places = |size: usize, kernel: usize, stride: usize, padding: usize| {
        let room = size.checked_add(padding.checked_mul(2)?)?.checked_sub(kernel)?;
        Some(room / stride.max(1) + 1)
    };
    let h = places(height, kernel.height, stride.height, padding.height)?;
    Some([h, places(width, kernel.width, stride.width, padding.width)?])
}

#[derive(Clone, Debug)]
enum Layer {
    Embedding(Embedding),
    Lstm(Lstm),
    Linear(Linear),
    Conv2d(Conv2d, Activation),
    MaxPool2d([usize; 2], Window),
    AveragePool2d([usize; 2], Window),
    Flatten,
    LayerNorm(LayerNorm),
    RmsNorm(RmsNorm),
    Dropout(Dropout),
}

/// A model whose parameters are registered, ready to be recorded in any number of graphs.
#[derive(Clone, Debug)]
pub struct Model {
    input: Input,
    layers: Vec<(String, Layer)>,
}

/// What [`Model::forward`] recorded.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The last layer's output.
    pub output: Tensor,
    /// Output of the layer before the last.
    pub features: Tensor,
    /// h and c of each LSTM layer where the mode carries state.
    pub state: Vec<(Tensor, Tensor)>,
}

impl Model {
    /// What it takes.
    pub fn input(&self) -> Input {
        self.input
    }

    /// Records the layers on an input: `[T, B]` words for tokens, `[B, width]` floats
    /// otherwise.
    ///
    /// # Errors
    /// [`Error::Shape`] for another input.
    pub fn forward(&self, graph: &mut Graph, input: Tensor, mode: Mode) -> Result<Forward> {
        let mut x = match (self.input, graph.shape(input).to_vec().as_slice()) {
            (Input::Tokens { .. }, [_, _]) if graph.element(input) == Element::U32 => input,
            (Input::Features { width }, [_, last]) if *last == width => input,
            (Input::Image { channels, height, width }, [batch, _]) => {
                graph.reshape(input, &[*batch, channels, height, width])?
            }
            (expected, shape) => {
                let what = format!("input {shape:?}, expected {expected:?}");
                return Err(Error::shape("model", what));
            }
        };
        let (mut features, mut state) = (x, Vec::new());
        for (name, layer) in &self.layers {
            features = x;
            x = graph.scoped(name, |graph| -> Result<Tensor> {
                Ok(match layer {
                    Layer::Embedding(layer) => layer.forward(graph, x)?,
                    Layer::Lstm(layer) => {
                        let (y, carried) = layer.forward(graph, x, mode)?;
                        state.extend(carried);
                        y
                    }
                    Layer::Linear(layer) => layer.forward(graph, x)?,
                    Layer::Conv2d(layer, activation) => {
                        let y = layer.forward(graph, x)?;
                        match activation {
                            Activation::Identity => y,
                            kind => graph.activation(y, *kind),
                        }
                    }
                    Layer::MaxPool2d(kernel, window) => graph.max_pool2d(x, *kernel, *window)?,
                    Layer::AveragePool2d(kernel, window) => {
                        graph.average_pool2d(x, *kernel, *window)?
                    }
                    Layer::Flatten => {
                        let [batch, rest @ ..] = graph.shape(x) else { return Ok(x) };
                        let shape = [*batch, rest.iter().product()];
                        graph.reshape(x, &shape)?
                    }
                    Layer::LayerNorm(layer) => layer.forward(graph, x)?,
                    Layer::RmsNorm(layer) => layer.forward(graph, x)?,
                    Layer::Dropout(layer) => layer.forward(graph, x, mode)?,
                })
            })?;
        }
        Ok(Forward { output: x, features, state })
    }
}

#[cfg(test)]
mod tests;
