//! What the command takes.

use std::path::PathBuf;

use clap::Parser;

use super::ways::Way;
use crate::options::RunOptions;

/// Trains low-rank adapters of a transformer on the addresses of presidents, who each are a client:
/// the adapters alone travel, in full precision, 16 bits and ternary, and under secure aggregation.
#[derive(Clone, Debug, Parser)]
#[command(name = "adapters", version)]
pub struct Options {
    /// Folder of a model of Llama's shape to adapt, SmolLM2's, say: `config.json`,
    /// `model.safetensors` and `tokenizer.json`; without it a small one that is trained on plays
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// A model of SmolLM2-135M's shape whose weights are drawn, reading bytes: what its rounds take
    #[arg(long, conflicts_with = "model")]
    pub smollm2: bool,
    /// Texts of your own, a file or a folder, with lines `@name` that say who speaks from there on
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Clients: the first speakers with text enough
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(3..))]
    pub speakers: u32,
    /// Rank of the adapters
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub rank: u32,
    /// Ways to send adapters; all if not given
    #[arg(long, value_enum, value_name = "WAY", value_delimiter = ',')]
    pub only: Vec<Way>,
    /// Rounds of each way
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Local steps of a client in a round
    #[arg(long, value_name = "T", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Windows of a step
    #[arg(long, value_name = "B", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: u32,
    /// Learning rate of the clients' AdamW
    #[arg(long, default_value_t = 5e-3)]
    pub learning_rate: f64,
    /// Steps of the small model on plays before
    #[arg(long, value_name = "N", default_value_t = 400, conflicts_with_all = ["model", "smollm2"], value_parser = clap::value_parser!(u32).range(1..))]
    pub plays: u32,
    /// Device and report
    #[command(flatten)]
    pub run: RunOptions,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Options as clap::CommandFactory>::command().debug_assert();
        let parse = |args: &[&str]| Options::try_parse_from([&["adapters"], args].concat());
        assert_eq!(parse(&[]).unwrap().rank, 8);
        let some = parse(&["--only", "half,secure-ternary"]).unwrap();
        assert_eq!(some.only, [Way::Half, Way::SecureTernary]);
        for wrong in [["--speakers", "2"], ["--rank", "0"], ["--only", "bf16"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["--model", "x", "--smollm2"]).is_err());
        assert!(parse(&["--smollm2", "--plays", "3"]).is_err());
    }
}
