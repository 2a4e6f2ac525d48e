//! Sizes and options of layers, with the defaults of PyTorch.

use tern_shaders::Activation;

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
}

impl LinearConfig {
    /// With a bias, without an activation.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        LinearConfig { inputs, outputs, bias: true, activation: Activation::Identity }
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
}

impl LstmConfig {
    /// One layer with separate gates, without dropout.
    pub fn new(inputs: usize, hidden: usize) -> Self {
        LstmConfig { inputs, hidden, layers: 1, coupled: false, dropout: 0.0 }
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
}

/// A [`Conv2d`](super::Conv2d) layer of square filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conv2dConfig {
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output: number of filters.
    pub outputs: usize,
    /// Height and width of a filter, in pixels.
    pub kernel: usize,
    /// Pixels from one place of a filter to the next; 1 by default.
    pub stride: usize,
    /// Pixels of zeros around the image; 0 by default.
    pub padding: usize,
}

impl Conv2dConfig {
    /// Filters at every place where they fit whole.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Conv2dConfig { inputs, outputs, kernel, stride: 1, padding: 0 }
    }

    /// With so many pixels from one place to the next.
    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// With so many pixels of zeros around the image.
    pub fn padding(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }
}
