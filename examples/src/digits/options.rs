//! What the command takes, and how much the quick and the full run do.

use std::path::PathBuf;

use clap::Parser;
use tern_engine::Activation;
use tern_engine::nn::{Conv2dConfig, Input, LayerSpec, ModelSpec};
use tern_fl::methods::align::{Model, Objective, Settings};

use crate::network::NetworkOptions;
use crate::options::RunOptions;

/// Lets nodes with labeled digits teach one with unlabeled digits of another kind: they exchange
/// parameters only, and a domain discriminator makes their features look alike.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "digits-transfer", version)]
pub struct Options {
    /// Small enough to end within three minutes on two CPU cores
    #[arg(long)]
    pub quick: bool,
    /// Images of your own: a folder with `target.csv` and one or more `source-<name>.csv`,
    /// 64 columns of 8×8 pixels from 0 to 16 and a column `label`. The target's labels are used
    /// to measure, and by the ceiling
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Device and report
    #[command(flatten)]
    pub run: RunOptions,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
    /// Runs, each with the next seed; 5 in the full run, 1 in the quick one
    #[arg(long, value_name = "N", conflicts_with = "network", value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: Option<u32>,
    /// Exchanges of a discriminator and of what is trained against it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub exchanges: Option<u32>,
    /// As processes
    #[command(flatten)]
    pub network: NetworkOptions,
}

impl Options {
    /// How much to do.
    pub fn scale(&self) -> Scale {
        let mut scale = if self.quick { Scale::quick() } else { Scale::full() };
        scale.seeds = self.seeds.unwrap_or(scale.seeds);
        scale.settings.exchanges = self.exchanges.unwrap_or(scale.settings.exchanges);
        scale
    }
}

/// How much a run does.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Repetitions.
    pub seeds: u32,
    /// Most digits that a node trains on.
    pub digits: usize,
    /// Most digits that accuracy is measured on.
    pub tested: usize,
    /// How nodes train.
    pub settings: Settings,
}

impl Scale {
    /// For a GPU or some patience.
    pub fn full() -> Self {
        let settings = Settings {
            exchanges: 600,
            strength: 0.3,
            objective: Objective::Reverse,
            ..Settings::default()
        };
        Scale { seeds: 5, digits: 4000, tested: 10_000, settings }
    }

    /// For three minutes on two CPU cores.
    pub fn quick() -> Self {
        let mut scale = Scale { seeds: 1, tested: 2000, ..Scale::full() };
        scale.settings.exchanges = 400;
        scale
    }
}

/// Features a digit has.
const FEATURES: usize = 64;
/// Classes.
pub const CLASSES: usize = 10;
/// Rows and columns of an image.
pub const SIDE: usize = 8;

/// Two convolutions and a normalized layer of features; one layer that reads the class from
/// them; and a discriminator that sees features class by class.
pub fn model() -> tern_fl::Result<Model> {
    let convolution = |outputs, stride| {
        LayerSpec::Conv2d(
            Conv2dConfig::new(outputs, 3).stride(stride).padding(1).activation(Activation::Relu),
        )
    };
    let linear = |outputs, activation| LayerSpec::Linear { outputs, activation };
    let extractor = ModelSpec {
        input: Input::Image { channels: 1, height: SIDE, width: SIDE },
        layers: vec![
            ("0".into(), convolution(16, 1)),
            ("1".into(), convolution(32, 2)),
            ("2".into(), LayerSpec::Flatten),
            ("3".into(), linear(FEATURES, Activation::Relu)),
            ("4".into(), LayerSpec::LayerNorm),
        ],
    };
    let task = ModelSpec::mlp(FEATURES, &[], CLASSES);
    Model::conditional(extractor, task, ModelSpec::mlp(FEATURES * CLASSES, &[64], 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_overrides_the_scale() {
        <Options as clap::CommandFactory>::command().debug_assert();
        let line = ["digits-transfer", "--quick", "--exchanges", "7", "--seeds", "2"];
        let scale = Options::try_parse_from(line).unwrap().scale();
        assert_eq!((scale.settings.exchanges, scale.seeds), (7, 2));
        assert!(Options::try_parse_from(["digits-transfer", "--seeds", "0"]).is_err());
        let line = ["digits-transfer", "--network", "--seeds", "2"];
        assert!(
            Options::try_parse_from(line).is_err() && Options::try_parse_from(&line[..2]).is_ok()
        );
        assert_eq!(model().unwrap().classes(), CLASSES);
    }
}
