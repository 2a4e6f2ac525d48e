//! Layers of convolutions, and how models that are data describe them.

use serde::{Deserialize, Serialize};
use tern_shaders::Activation;

use super::Pixels;
use super::layers::bound;
use super::spec::{activation_name, is_none, is_yes, yes};
use crate::ops::convolution::{Placement, Window};
use crate::{Error, Graph, Param, Parameters, Result, Tensor};

/// A [`Conv2d`] or [`ConvTranspose2d`] layer, in a [`ModelSpec`](super::ModelSpec), too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Conv2dConfig {
    /// Output channels.
    pub outputs: usize,
    /// Of the kernel.
    pub kernel: Pixels,
    /// From one place of the kernel to the next.
    pub stride: Pixels,
    /// Zeros put around the image: above and below, left and right.
    pub padding: Pixels,
    /// From one tap of the kernel to the next; 1 if nothing is said.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub dilation: Pixels,
    /// Groups of channels, each seen by as many filters; 1 if nothing is said.
    #[serde(default = "one_group", skip_serializing_if = "is_one_group")]
    pub groups: usize,
    /// Rows below and columns to the right that a transposed convolution gives beside those that it must,
    /// fewer than the stride; none if nothing is said.
    #[serde(default, skip_serializing_if = "is_none")]
    pub output_padding: Pixels,
    /// Whether there is a bias; there is if nothing is said.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub bias: bool,
    /// Applied to the outputs.
    #[serde(default, with = "activation_name")]
    pub activation: Activation,
}

fn one() -> Pixels {
    1.into()
}

fn is_one(pixels: &Pixels) -> bool {
    *pixels == one()
}

fn one_group() -> usize {
    1
}

fn is_one_group(groups: &usize) -> bool {
    *groups == 1
}

impl Conv2dConfig {
    /// Filters at every place where they fit whole, with a bias and no activation.
    pub fn new(outputs: usize, kernel: impl Into<Pixels>) -> Self {
        let (stride, dilation, groups) = (one(), one(), 1);
        let (padding, output_padding) = (Pixels::default(), Pixels::default());
        let (kernel, activation) = (kernel.into(), Activation::Identity);
        Conv2dConfig {
            outputs,
            kernel,
            stride,
            padding,
            dilation,
            groups,
            output_padding,
            bias: true,
            activation,
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

    /// With so many groups of channels.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// With so many rows and columns more, of a transposed convolution.
    pub fn output_padding(mut self, pixels: impl Into<Pixels>) -> Self {
        self.output_padding = pixels.into();
        self
    }

    /// With or without a bias.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// With an activation of the outputs.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Rows and columns that come of an image; `None` where the kernel doesn't fit, the padding holds a whole
    /// one, or a stride or dilation is 0.
    pub(super) fn moved(&self, rows: usize, columns: usize) -> Option<[usize; 2]> {
        let spans = |kernel: usize, dilation: usize, stride: usize, padding: usize| {
            let span = kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
            (dilation > 0 && stride > 0 && padding < span).then_some(span)
        };
        let (kernel, dilation, stride) = (self.kernel, self.dilation, self.stride);
        let kernel = Pixels {
            height: spans(kernel.height, dilation.height, stride.height, self.padding.height)?,
            width: spans(kernel.width, dilation.width, stride.width, self.padding.width)?,
        };
        moved([rows, columns], kernel, self.stride, self.padding)
    }
}

/// Rows and columns of what windows of an image give; `None` where they don't fit.
pub(super) fn moved(
    [height, width]: [usize; 2],
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

impl Conv2dConfig {
    pub(super) fn placement(&self) -> Placement {
        let window = Window { stride: self.stride.into(), padding: self.padding.into() };
        Placement::from(window).dilation(self.dilation.into()).groups(self.groups)
    }

    /// Registers the weight, of as many filters and channels of each, and the bias.
    fn register(
        &self,
        parameters: &mut Parameters,
        name: &str,
        inputs: usize,
        [filters, channels]: [usize; 2],
    ) -> Result<(Param, Option<Param>)> {
        let (groups, kernel) = (self.groups, self.kernel);
        let unfit = |n: &usize| groups == 0 || !n.is_multiple_of(groups);
        if let Some(channels) = [inputs, self.outputs].iter().find(|n| unfit(n)) {
            let expected = format!("a divisor of {channels} channels");
            return Err(Error::value(format!("groups of {name}"), groups, expected));
        }
        let depth = channels / groups;
        let init = bound(depth.saturating_mul(kernel.height).saturating_mul(kernel.width));
        let shape = [filters, depth, kernel.height, kernel.width];
        let weight = parameters.add(&format!("{name}.weight"), &shape, init)?;
        let bias = match self.bias {
            true => Some(parameters.add(&format!("{name}.bias"), &[self.outputs], init)?),
            false => None,
        };
        Ok((weight, bias))
    }
}

/// 2-D convolution, NCHW: `weight [out, in / groups, k, k]`, `bias [out]`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Param,
    bias: Option<Param>,
    placement: Placement,
    activation: Activation,
}

impl Conv2d {
    /// Registers `name.weight` and, if asked for, `name.bias`, uniform within 1/√(in / groups · k · k').
    ///
    /// # Errors
    /// As [`Parameters::add`]; [`Error::Value`] for groups that channels aren't multiples of, or an output
    /// padding.
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        inputs: usize,
        config: Conv2dConfig,
    ) -> Result<Self> {
        if config.output_padding != Pixels::default() {
            let given = format!("{:?}", config.output_padding);
            let expected = "none, but in a transposed convolution";
            return Err(Error::value(format!("output padding of {name}"), given, expected));
        }
        let size = [config.outputs, inputs];
        let (weight, bias) = config.register(parameters, name, inputs, size)?;
        let (placement, activation) = (config.placement(), config.activation);
        Ok(Conv2d { weight, bias, placement, activation })
    }

    /// `[N, in, H, W]` to `[N, out, H', W']`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of channels or an image smaller than the kernel.
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        let y = graph.conv2d(x, &self.weight, self.bias.as_ref(), self.placement)?;
        Ok(activated(graph, y, self.activation))
    }
}

/// 2-D transposed convolution, NCHW: `weight [in, out / groups, k, k]`, `bias [out]`.
#[derive(Clone, Debug)]
pub struct ConvTranspose2d {
    weight: Param,
    bias: Option<Param>,
    placement: Placement,
    output_padding: [usize; 2],
    activation: Activation,
}

impl ConvTranspose2d {
    /// Registers `name.weight` and, if asked for, `name.bias`, uniform within 1/√(out / groups · k · k'), as
    /// PyTorch has it.
    ///
    /// # Errors
    /// As [`Parameters::add`]; [`Error::Value`] for groups that channels aren't multiples of.
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        inputs: usize,
        config: Conv2dConfig,
    ) -> Result<Self> {
        let size = [inputs, config.outputs];
        let (weight, bias) = config.register(parameters, name, inputs, size)?;
        let (placement, activation) = (config.placement(), config.activation);
        let output_padding = config.output_padding.into();
        Ok(ConvTranspose2d { weight, bias, placement, output_padding, activation })
    }

    /// `[N, in, H, W]` to `[N, out, H', W']`.
    ///
    /// # Errors
    /// As [`Graph::conv_transpose2d`].
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        let (bias, padding) = (self.bias.as_ref(), self.output_padding);
        let y = graph.conv_transpose2d(x, &self.weight, bias, self.placement, padding)?;
        Ok(activated(graph, y, self.activation))
    }
}

fn activated(graph: &mut Graph, x: Tensor, activation: Activation) -> Tensor {
    match activation {
        Activation::Identity => x,
        kind => graph.activation(x, kind),
    }
}
