//! ResNet-18.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;

#[derive(Module, Debug)]
struct Normed {
    convolution: Conv2d,
    norm: BatchNorm,
}

impl Normed {
    fn new([inputs, outputs]: [usize; 2], kernel: usize, stride: usize, device: &Device) -> Self {
        let pad = kernel / 2;
        let config = Conv2dConfig::new([inputs, outputs], [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false);
        Normed {
            convolution: config.init(device),
            norm: BatchNormConfig::new(outputs).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.convolution.forward(x))
    }
}

#[derive(Module, Debug)]
struct Block {
    first: Normed,
    second: Normed,
    shortcut: Option<Normed>,
}

impl Block {
    fn new([inputs, outputs]: [usize; 2], stride: usize, device: &Device) -> Self {
        let differs = (inputs, stride) != (outputs, 1);
        Block {
            first: Normed::new([inputs, outputs], 3, stride, device),
            second: Normed::new([outputs, outputs], 3, 1, device),
            shortcut: differs.then(|| Normed::new([inputs, outputs], 1, stride, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.second.forward(relu(self.first.forward(x.clone())));
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        relu(y + x)
    }
}

#[derive(Module, Debug)]
pub struct ResNet {
    stem: Normed,
    pool: MaxPool2d,
    blocks: Vec<Block>,
    output: Linear,
}

impl ResNet {
    pub fn eighteen(classes: usize, device: &Device) -> Self {
        let mut blocks = Vec::new();
        let mut inputs = 64;
        for outputs in [64, 128, 256, 512] {
            for _ in 0..2 {
                let stride = if outputs == inputs { 1 } else { 2 };
                blocks.push(Block::new([inputs, outputs], stride, device));
                inputs = outputs;
            }
        }
        let pool = MaxPool2dConfig::new([3, 3])
            .with_strides([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        ResNet {
            stem: Normed::new([3, 64], 7, 2, device),
            pool: pool.init(),
            blocks,
            output: LinearConfig::new(512, classes).init(device),
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.stem.forward(x)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let [batch, channels, height, width] = x.dims();
        let means =
            x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels]);
        self.output.forward(means)
    }
}
