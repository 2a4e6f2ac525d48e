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
