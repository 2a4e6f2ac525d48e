//! Sizes and options of layers, with the defaults of PyTorch.

use serde::{Deserialize, Serialize};
use tern_shaders::Activation;

use crate::Init;

/// Height and width, in pixels: of a filter, a window, a step. Written as one number where both are
/// the same, and as `[height, width]` otherwise.
///
/// ```
/// use tern_engine::nn::Pixels;
///
/// assert_eq!(Pixels::from(3), Pixels::from([3, 3]));
/// assert_eq!((Pixels::from([3, 5]).height, Pixels::from([3, 5]).width), (3, 5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Pixels {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// [`Pixels`] in a file.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels or [height, width]")]
enum Written {
    Square(usize),
    Sides([usize; 2]),
}

impl From<Written> for Pixels {
    fn from(written: Written) -> Self {
        match written {
            Written::Square(side) => side.into(),
            Written::Sides(sides) => sides.into(),
        }
    }
}

impl From<Pixels> for Written {
    fn from(Pixels { height, width }: Pixels) -> Self {
        match height == width {
            true => Written::Square(height),
            false => Written::Sides([height, width]),
        }
    }
}

impl From<usize> for Pixels {
    fn from(side: usize) -> Self {
        Pixels { height: side, width: side }
    }
}

impl From<[usize; 2]> for Pixels {
    fn from([height, width]: [usize; 2]) -> Self {
        Pixels { height, width }
    }
}

impl From<Pixels> for [usize; 2] {
    fn from(Pixels { height, width }: Pixels) -> Self {
        [height, width]
    }
}

/// A [`Linear`](super::Linear) layer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LinearConfig {
    /// Features of a row of the input.
    pub inputs: usize,
    /// Features of a row of the output.
    pub outputs: usize,
    /// Whether there is a bias; there is by default.
    pub bias: bool,
    /// Applied to each output; the identity by default.
    pub activation: Activation,
    /// Starting values of the weight; uniform within 1/√inputs by default.
    pub init: Option<Init>,
}

impl LinearConfig {
    /// With a bias, without an activation.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        let activation = Activation::Identity;
        LinearConfig { inputs, outputs, bias: true, activation, init: None }
    }

    /// With or without a bias.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// With an activation.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// With starting values of the weight.
    pub fn init(mut self, init: Init) -> Self {
        self.init = Some(init);
        self
    }
}

/// [`Lstm`](super::Lstm) layers, one on another.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LstmConfig {
    /// Features of a step of the input.
    pub inputs: usize,
    /// Units of each layer.
    pub hidden: usize,
    /// Number of layers; 1 by default.
    pub layers: usize,
    /// Couples input and forget gates, f = 1 − i (CIFG; Greff et al. 2017); off by default.
    pub coupled: bool,
    /// Probability that an output of a layer is dropped on its way to the next one; 0 by default.
    pub dropout: f32,
    /// Whether each layer reads the sequence in both directions; off by default.
    pub bidirectional: bool,
    /// Projections of the units that a step puts out in their stead, and the next one reads, fewer than
    /// there are units (Sak et al. 2014); none by default.
    pub projection: Option<usize>,
}

impl LstmConfig {
    /// One layer of one direction with separate gates, without dropout and projection.
    pub fn new(inputs: usize, hidden: usize) -> Self {
        LstmConfig {
            inputs,
            hidden,
            layers: 1,
            coupled: false,
            dropout: 0.0,
            bidirectional: false,
            projection: None,
        }
    }

    /// With so many layers.
    pub fn layers(mut self, layers: usize) -> Self {
        self.layers = layers;
        self
    }

    /// With coupled input and forget gates, or separate ones.
    pub fn coupled(mut self, coupled: bool) -> Self {
        self.coupled = coupled;
        self
    }

    /// With a probability of dropout between layers.
    pub fn dropout(mut self, p: f32) -> Self {
        self.dropout = p;
        self
    }

    /// With both directions, or the forward one alone.
    pub fn bidirectional(mut self, bidirectional: bool) -> Self {
        self.bidirectional = bidirectional;
        self
    }

    /// With outputs projected to so many floats a step, or not.
    pub fn projection(mut self, outputs: impl Into<Option<usize>>) -> Self {
        self.projection = outputs.into();
        self
    }
}

/// [`Gru`](super::Gru) layers, one on another.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GruConfig {
    /// Features of a step of the input.
    pub inputs: usize,
    /// Units of each layer.
    pub hidden: usize,
    /// Number of layers; 1 by default.
    pub layers: usize,
    /// Probability that an output of a layer is dropped on its way to the next one; 0 by default.
    pub dropout: f32,
    /// Whether each layer reads the sequence in both directions; off by default.
    pub bidirectional: bool,
}

impl GruConfig {
    /// One layer of one direction, without dropout.
    pub fn new(inputs: usize, hidden: usize) -> Self {
        GruConfig { inputs, hidden, layers: 1, dropout: 0.0, bidirectional: false }
    }

    /// With so many layers.
    pub fn layers(mut self, layers: usize) -> Self {
        self.layers = layers;
        self
    }

    /// With a probability of dropout between layers.
    pub fn dropout(mut self, p: f32) -> Self {
        self.dropout = p;
        self
    }

    /// With both directions, or the forward one alone.
    pub fn bidirectional(mut self, bidirectional: bool) -> Self {
        self.bidirectional = bidirectional;
        self
    }
}

/// A [`Conv2d`](super::Conv2d) or [`ConvTranspose2d`](super::ConvTranspose2d) layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conv2dConfig {
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output: number of filters.
    pub outputs: usize,
    /// Of a filter.
    pub kernel: Pixels,
    /// From one place of a filter to the next; 1 by default.
    pub stride: Pixels,
    /// Zeros around the image: above and below, left and right; 0 by default.
    pub padding: Pixels,
    /// From one tap of a filter to the next; 1 by default.
    pub dilation: Pixels,
    /// Groups of channels, each seen by as many filters; 1 by default.
    pub groups: usize,
    /// Rows below and columns to the right that a transposed convolution gives beside those that it must;
    /// 0 by default.
    pub output_padding: Pixels,
    /// Whether there is a bias; there is by default.
    pub bias: bool,
}

impl Conv2dConfig {
    /// Filters at every place where they fit whole, with a bias.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Pixels>) -> Self {
        let (kernel, one, none) = (kernel.into(), 1.into(), 0.into());
        Conv2dConfig {
            inputs,
            outputs,
            kernel,
            stride: one,
            padding: none,
            dilation: one,
            groups: 1,
            output_padding: none,
            bias: true,
        }
    }

    /// With so many pixels from one place to the next.
    pub fn stride(mut self, stride: impl Into<Pixels>) -> Self {
        self.stride = stride.into();
        self
    }

    /// With so many pixels of zeros around the image.
    pub fn padding(mut self, padding: impl Into<Pixels>) -> Self {
        self.padding = padding.into();
        self
    }

    /// With so many pixels from one tap to the next.
    pub fn dilation(mut self, dilation: impl Into<Pixels>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// With so many groups of channels; as many as there are channels make it depthwise.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// With so many rows and columns more, of a [`ConvTranspose2d`](super::ConvTranspose2d).
    pub fn output_padding(mut self, pixels: impl Into<Pixels>) -> Self {
        self.output_padding = pixels.into();
        self
    }

    /// With or without a bias.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
}
