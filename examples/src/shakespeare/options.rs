//! What the command takes.

use std::path::PathBuf;

use clap::Parser;

use crate::options::RunOptions;

/// Trains a character model on Shakespeare's roles by federated averaging, simulated, until it
/// expects 54 % of the characters of their test lines.
#[derive(Clone, Debug, Parser)]
#[command(name = "shakespeare", version)]
pub struct Options {
    /// Deal all roles' lines out to as many clients at random, instead of a client for each role
    #[arg(long)]
    pub iid: bool,
    /// Rounds at most
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Test accuracy, in percent, to stop at
    #[arg(long, value_name = "PERCENT", default_value_t = 54.0, value_parser = percent)]
    pub target: f64,
    /// Clients of a round; a tenth of all if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cohort: Option<u32>,
    /// Passes of a client over its lines
    #[arg(long, value_name = "E", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: u32,
    /// Lines in a local step
    #[arg(long, value_name = "B", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Learning rate of the clients; the default is the paper's
    #[arg(long, default_value_t = 1.47)]
    pub learning_rate: f64,
    /// Factor that the rate falls by; 1 for the paper's constant rate
    #[arg(long, value_name = "FACTOR", default_value_t = 0.32, value_parser = factor)]
    pub decay: f64,
    /// Rounds after each of which it falls
    #[arg(long, value_name = "ROUNDS", value_delimiter = ',', default_value = "26,43")]
    pub after: Vec<u32>,
    /// Units of each of the two LSTM layers
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub hidden: u32,
    /// Characters of the test lines that are measured after each round; all if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub test: Option<u64>,
    /// Texts of your own, a file or a folder, with lines `@name` that say who speaks from there on
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Device and report
    #[command(flatten)]
    pub run: RunOptions,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
}

/// A percentage that can be reached.
fn percent(text: &str) -> Result<f64, String> {
    part(text, 100.0)
}

/// A factor of a rate that doesn't rise.
fn factor(text: &str) -> Result<f64, String> {
    part(text, 1.0)
}

fn part(text: &str, whole: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(part) if (0.0..=whole).contains(&part) => Ok(part),
        _ => Err(format!("expected a number from 0 to {whole}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_reached_or_measured_is_refused() {
        <Options as clap::CommandFactory>::command().debug_assert();
        let parse = |args: &[&str]| Options::try_parse_from([&["shakespeare"], args].concat());
        assert_eq!(parse(&["--target", "54.5"]).unwrap().target, 54.5);
        for wrong in [["--target", "nan"], ["--target", "101"], ["--test", "0"], ["--decay", "1.1"]]
        {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
