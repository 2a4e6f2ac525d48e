//! What the command takes, and how much the quick and the full run do.

use std::path::PathBuf;

use clap::Parser;

use crate::network::NetworkOptions;
use crate::options::RunOptions;

/// Terminals of an insurer train a model together that recommends products: in full precision,
/// with ternary updates, and with ternary updates that only their sum is known of.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "recommender", version)]
pub struct Options {
    /// Small enough to end within two minutes on two CPU cores
    #[arg(long)]
    pub quick: bool,
    /// Customers of your own: a CSV file, plain or gzip. The first column says whose terminal a
    /// customer belongs to, columns `P...` are products (0: not owned), columns `A...` and
    /// `Purchase` are left out, all others describe the customer by numbers up to about 10
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// A folder with MovieLens (`u.data` of 100k, `ratings.csv` of the later sets) instead:
    /// film factors that are trained together, user factors that stay on the device
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data", "network", "seeds"])]
    pub movielens: Option<PathBuf>,
    /// Device and report
    #[command(flatten)]
    pub run: RunOptions,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
    /// Runs with as many seeds, from `--seed` on: mean and standard deviation
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "network", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub seeds: u32,
    /// Rounds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// t: local rounds of gradient descent, a batch each
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: Option<u32>,
    /// Terminals, or users, whose updates are taken in a round
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..))]
    pub cohort: Option<u32>,
    /// As processes over TLS.
    #[command(flatten)]
    pub network: NetworkOptions,
}

/// How much a run does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Rounds.
    pub rounds: u32,
    /// t: local steps.
    pub steps: u32,
    /// Terminals of a round.
    pub cohort: u32,
    /// Samples of a local step.
    pub batch: u32,
    /// Units of the hidden layer.
    pub hidden: usize,
    /// Rounds from one measurement to the next.
    pub every: u32,
}

impl Scale {
    /// Whether a round's model is measured.
    pub fn due(&self, round: u32) -> bool {
        round == self.rounds || round.is_multiple_of(self.every)
    }
}

impl Options {
    /// How much to do.
    pub fn scale(&self) -> Scale {
        let quick = Scale { rounds: 60, steps: 10, cohort: 10, batch: 32, hidden: 32, every: 5 };
        let full = Scale { rounds: 300, hidden: 64, every: 10, ..quick };
        let scale = if self.quick { quick } else { full };
        // Few users know a film.
        let cohort = if self.movielens.is_some() { 5 * scale.cohort } else { scale.cohort };
        Scale {
            rounds: self.rounds.unwrap_or(scale.rounds),
            steps: self.steps.unwrap_or(scale.steps),
            cohort: self.cohort.unwrap_or(cohort),
            ..scale
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_overrides_the_scale() {
        <Options as clap::CommandFactory>::command().debug_assert();
        let parse =
            |args: &[&str]| Options::try_parse_from(["recommender"].iter().chain(args).copied());
        let scale = parse(&["--quick", "--rounds", "7", "--steps", "2"]).unwrap().scale();
        assert_eq!((scale.rounds, scale.steps, scale.hidden), (7, 2, 32));
        assert!(parse(&[]).unwrap().scale().rounds > 100);
        let cohort =
            |args: &[&str]| parse(&[&["--movielens", "x"], args].concat()).unwrap().scale();
        assert_eq!((cohort(&[]).cohort, cohort(&["--cohort", "20"]).cohort), (50, 20));
        for wrong in [["--rounds", "0"], ["--cohort", "3"], ["--seeds", "0"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
        // What would do nothing is refused; a default is nothing that was asked for.
        for alone in [&["--network"][..], &["--seeds", "2"], &["--movielens", "x"]] {
            assert!(parse(alone).is_ok(), "{alone:?}");
        }
        for both in [["--network", "--seeds", "2"], ["--movielens", "x", "--network"]] {
            assert!(parse(&both).is_err(), "{both:?}");
        }
        assert!(parse(&["--movielens", "x", "--seeds", "2"]).is_err());
    }
}
