//! Normalization with weights by channel, and the residual blocks that it made possible.

use super::{Conv2d, Conv2dConfig, Mode};
use crate::ops::normalize::groups::BatchNormWeights;
use crate::{Activation, Graph, Init, Param, Parameters, Result, Tensor};

/// Added to variances, PyTorch's default.
const EPSILON: f32 = 1e-5;
/// Share of a batch's moments in the running ones, PyTorch's default.
const MOMENTUM: f32 = 0.1;

/// γ and β of a normalization, ones and zeros at first.
fn affine(parameters: &mut Parameters, name: &str, channels: usize) -> Result<[Param; 2]> {
    Ok([
        parameters.add(&format!("{name}.weight"), &[channels], Init::Constant(1.0))?,
        parameters.add(&format!("{name}.bias"), &[channels], Init::Zeros)?,
    ])
}

/// Batch normalization of each channel (Ioffe, Szegedy 2015): `weight`, `bias`, `running_mean`,
/// `running_var` `[C]`, ε = 1e-5, momentum 0.1. A mode that trains takes the moments of the batch and
/// moves the running ones, the others take these.
///
/// The running moments are parameters without gradients: optimizers leave them as they are, files and
/// the updates of a federation have them. There the mean of the clients' moments becomes the next
/// model's, weighted as all else (federated averaging as it is; what differs between clients in them is
/// averaged away, which [`GroupNorm`] has no need of). A plan whose updates or strategy would make
/// something else of them is refused.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    weights: BatchNormWeights,
}

impl BatchNorm {
    /// Registers the parameters.
    ///
    /// # Errors
    /// As [`Parameters::add`].
    pub fn new(parameters: &mut Parameters, name: &str, channels: usize) -> Result<Self> {
        let [gamma, beta] = affine(parameters, name, channels)?;
        let mut running = |part: &str, value| {
            parameters.add(&format!("{name}.{part}"), &[channels], Init::Constant(value))
        };
        let (running_mean, running_var) =
            (running("running_mean", 0.0)?, running("running_var", 1.0)?);
        Ok(BatchNorm { weights: BatchNormWeights { gamma, beta, running_mean, running_var } })
    }

    /// `[N, C, ...]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for other channels; [`Error::Value`](crate::Error::Value)
    /// for one element a channel in training.
    pub fn forward(&self, graph: &mut Graph, x: Tensor, mode: Mode) -> Result<Tensor> {
        graph.batch_norm(x, &self.weights, EPSILON, mode.trains().then_some(MOMENTUM))
    }
}

/// Group normalization (Wu, He 2018): `weight`, `bias` `[C]`, ε = 1e-5.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    groups: usize,
    gamma: Param,
    beta: Param,
}

impl GroupNorm {
    /// Registers the parameters.
    ///
    /// # Errors
    /// As [`Parameters::add`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        groups: usize,
        channels: usize,
    ) -> Result<Self> {
        let [gamma, beta] = affine(parameters, name, channels)?;
        Ok(GroupNorm { groups, gamma, beta })
    }

    /// `[N, C, ...]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for other channels; [`Error::Value`](crate::Error::Value)
    /// for groups that don't divide them.
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        graph.group_norm(x, self.groups, &self.gamma, &self.beta, EPSILON)
    }
}

/// The residual block of ResNet-18 and -34 (He et al. 2016), under torchvision's names: two
/// convolutions of 3 × 3 with batch norms, `conv1`, `bn1`, `conv2`, `bn2`, whose result is added to
/// the input; where the shapes differ, to what a convolution of 1 × 1 and a batch norm make of it,
/// `downsample.0` and `downsample.1`.
#[derive(Clone, Debug)]
pub struct BasicBlock {
    convolutions: [(Conv2d, BatchNorm); 2],
    shortcut: Option<(Conv2d, BatchNorm)>,
}

impl BasicBlock {
    /// Registers the parameters.
    ///
    /// # Errors
    /// As [`Parameters::add`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        [inputs, outputs]: [usize; 2],
        stride: usize,
    ) -> Result<Self> {
        let mut pair = |[conv, norm]: [&str; 2], inputs, config: Conv2dConfig| -> Result<_> {
            let (conv, norm) = (format!("{name}.{conv}"), format!("{name}.{norm}"));
            let conv = Conv2d::new(parameters, &conv, inputs, config.bias(false))?;
            Ok((conv, BatchNorm::new(parameters, &norm, config.outputs)?))
        };
        let three = |stride| Conv2dConfig::new(outputs, 3).stride(stride).padding(1);
        let convolutions = [
            pair(["conv1", "bn1"], inputs, three(stride))?,
            pair(["conv2", "bn2"], outputs, three(1))?,
        ];
        let shortcut = match (inputs, stride) == (outputs, 1) {
            true => None,
            false => {
                let config = Conv2dConfig::new(outputs, 1).stride(stride);
                Some(pair(["downsample.0", "downsample.1"], inputs, config)?)
            }
        };
        Ok(BasicBlock { convolutions, shortcut })
    }

    /// `[N, in, H, W]` to `[N, out, ⌈H / stride⌉, ⌈W / stride⌉]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for another number of channels.
    pub fn forward(&self, graph: &mut Graph, x: Tensor, mode: Mode) -> Result<Tensor> {
        let [(conv1, norm1), (conv2, norm2)] = &self.convolutions;
        let y = conv1.forward(graph, x)?;
        let y = norm1.forward(graph, y, mode)?;
        let y = graph.activation(y, Activation::Relu);
        let y = conv2.forward(graph, y)?;
        let y = norm2.forward(graph, y, mode)?;
        let x = match &self.shortcut {
            Some((conv, norm)) => {
                let x = conv.forward(graph, x)?;
                norm.forward(graph, x, mode)?
            }
            None => x,
        };
        let sum = graph.add(y, x)?;
        Ok(graph.activation(sum, Activation::Relu))
    }
}
