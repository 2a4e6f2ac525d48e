//! Models that are described often.

use tern_shaders::Activation;

use super::{Conv2dConfig, Input, LayerSpec, ModelSpec};

impl ModelSpec {
    /// A language model: `embedding`, `lstm`, `output` over the vocabulary.
    pub fn language_model(
        vocabulary: usize,
        dimension: usize,
        hidden: usize,
        layers: usize,
    ) -> Self {
        let lstm = LayerSpec::lstm(hidden, layers);
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

    /// ResNet-18 (He et al. 2016) under torchvision's names, whose weights it takes: a convolution of
    /// 7 × 7, a maximum pool, eight [basic blocks](LayerSpec::BasicBlock) of 64 to 512 channels, and
    /// classes of their means.
    pub fn resnet18(channels: usize, [height, width]: [usize; 2], classes: usize) -> Self {
        let conv = LayerSpec::Conv2d(Conv2dConfig::new(64, 7).stride(2).padding(3).bias(false));
        let pool = LayerSpec::MaxPool2d { kernel: 3.into(), stride: 2.into(), padding: 1.into() };
        let mut layers = vec![
            ("conv1".to_owned(), conv),
            ("bn1".to_owned(), LayerSpec::BatchNorm),
            ("relu".to_owned(), LayerSpec::Activation { kind: Activation::Relu }),
            ("maxpool".to_owned(), pool),
        ];
        for (stage, outputs) in (1..).zip([64, 128, 256, 512]) {
            for block in 0..2 {
                let stride = if stage > 1 && block == 0 { 2 } else { 1 };
                layers.push((
                    format!("layer{stage}.{block}"),
                    LayerSpec::BasicBlock { outputs, stride },
                ));
            }
        }
        let classes = LayerSpec::Linear { outputs: classes, activation: Activation::Identity };
        layers.extend([
            ("avgpool".to_owned(), LayerSpec::GlobalAveragePool),
            ("fc".to_owned(), classes),
        ]);
        ModelSpec { input: Input::Image { channels, height, width }, layers }
    }
}
