//! What the command takes, and how much the quick and the full run do.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use super::client::{MIN_RECORDS, Recipe};
use crate::network::NetworkOptions;
use crate::options::RunOptions;
use crate::text::bundled;

/// Seed of the runs that are told of, and of the bundled model.
const SEED: u32 = 1;

/// Trains a public next-character model, lets it learn from users it never met, each on their
/// own device, and reports what that gains them.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "keyboard", version)]
pub struct Options {
    /// Small enough to end within three minutes on two CPU cores
    #[arg(long)]
    pub quick: bool,
    /// Text of your own, a file or a folder: the public model, the text held out from it and
    /// the users all come from it. Lines `@name` or `@play/name` say who speaks from there on
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Device and report
    #[command(flatten)]
    pub run: RunOptions,
    /// Seed of everything random
    #[arg(long, default_value_t = SEED)]
    pub seed: u32,
    /// A published model (`public-v1.safetensors` with its `.json` beside it) instead of
    /// training one; with `--data`, everybody in the data is a user then
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Train the public model of `--quick` and `--interactive` instead of taking the bundled one
    #[arg(long, conflicts_with = "model")]
    pub train: bool,
    /// Type yourself, and see the suggestions change as the model learns from you
    #[arg(long, conflicts_with_all = ["network", "users", "study"])]
    pub interactive: bool,
    /// Users to measure
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub users: Option<u32>,
    /// Training steps of the public model
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: Option<u32>,
    /// Records (characters typed) that a client collects before it trains on them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(MIN_RECORDS as i64..))]
    pub records: Option<u32>,
    /// Users whose devices also try other ways to train; 0 leaves them out
    #[arg(long, value_name = "N", conflicts_with = "network")]
    pub study: Option<u32>,
    /// The server and each client a process of its own, over TLS on this machine.
    #[command(flatten)]
    pub network: NetworkOptions,
}

/// The public model that `--quick --train` makes.
const BUNDLED: &str = "keyboard-public.safetensors";

impl Options {
    /// The published model to take instead of training one: a file's, or for a first look the
    /// bundled one, unless something is asked for that it isn't of.
    pub fn public_model(&self) -> Result<Option<PathBuf>> {
        let first_look = self.quick || self.interactive;
        let other = self.train || self.data.is_some() || self.steps.is_some() || self.seed != SEED;
        match &self.model {
            None if first_look && !other => bundled(BUNDLED).map(Some),
            model => Ok(model.clone()),
        }
    }

    /// How much to do.
    pub fn scale(&self) -> Scale {
        let mut scale = if self.quick { Scale::quick() } else { Scale::full() };
        scale.steps = self.steps.map_or(scale.steps, |n| n as usize);
        scale.users = match (self.users, &self.data, &self.model) {
            (Some(users), ..) => users as usize,
            // Everybody in the data is a user then.
            (None, Some(_), Some(_)) => usize::MAX,
            _ => scale.users,
        };
        scale.study_users = self.study.map_or(scale.study_users, |n| n as usize);
        scale.recipe.seed = self.seed;
        scale
    }
}

/// How much a run does.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Length of the character vectors.
    pub dimension: usize,
    /// Units of the LSTM layer.
    pub hidden: usize,
    /// Rows of a public training step.
    pub batch: usize,
    /// Public training steps.
    pub steps: usize,
    /// Highest learning rate of the public training.
    pub rate: f64,
    /// Characters of held-out text that the public model is measured on.
    pub held_out: usize,
    /// Most users.
    pub users: usize,
    /// Roles of held-out plays among them.
    pub roles: usize,
    /// Records to collect before training on them.
    pub records: usize,
    /// How a client trains.
    pub recipe: Recipe,
    /// Characters of each user's held-back lines that are typed with suggestions.
    pub typed: usize,
    /// Users whose devices train in other ways, too.
    pub study_users: usize,
    /// Records that they train on.
    pub study_records: usize,
}

impl Scale {
    /// For a GPU or some patience.
    pub fn full() -> Self {
        Scale {
            dimension: 32,
            hidden: 256,
            batch: 32,
            steps: 8500,
            rate: 5e-3,
            held_out: 200_000,
            users: 25,
            roles: 3,
            records: 20_000,
            recipe: Recipe { rate: 4e-3, passes: 6, batch: 8, seed: 1 },
            typed: 3000,
            study_users: 6,
            study_records: 20_000,
        }
    }

    /// For two minutes on two CPU cores.
    pub fn quick() -> Self {
        Scale {
            hidden: 192,
            batch: 16,
            steps: 2800,
            rate: 8e-3,
            held_out: 40_000,
            users: 6,
            roles: 0,
            typed: 600,
            study_users: 2,
            study_records: 10_000,
            ..Scale::full()
        }
    }
}

#[cfg(test)]
mod tests {
    use tern_engine::nn::LayerSpec;

    use super::*;
    use crate::public::PublicModel;

    #[test]
    fn a_first_look_takes_the_bundled_model_and_trains_if_asked() {
        let taken = |args: &[&str]| {
            let options = Options::parse_from(["keyboard"].iter().chain(args));
            options.public_model().unwrap()
        };
        for args in [&["--quick"][..], &["--interactive"], &["--quick", "--users", "2"]] {
            let public = PublicModel::load(&taken(args).unwrap()).unwrap();
            // What `--quick --train` would make.
            let scale = Scale::quick();
            let lstm = LayerSpec::lstm(scale.hidden, 1);
            assert_eq!(public.card.steps, scale.steps);
            assert!(public.card.spec.layers.iter().any(|(_, layer)| *layer == lstm));
        }
        for args in [
            &[][..],
            &["--quick", "--train"],
            &["--quick", "--steps", "9"],
            &["--quick", "--seed", "2"],
            &["--interactive", "--data", "mine"],
        ] {
            assert_eq!(taken(args), None, "{args:?}");
        }
        assert_eq!(taken(&["--quick", "--model", "own"]), Some("own".into()));
    }

    #[test]
    fn the_command_line_is_consistent_and_overrides_the_scale() {
        <Options as clap::CommandFactory>::command().debug_assert();
        let options = Options::try_parse_from(["keyboard", "--quick", "--steps", "7"]).unwrap();
        let scale = options.scale();
        assert_eq!((scale.steps, scale.hidden), (7, Scale::quick().hidden));
        for wrong in [
            &["--users", "0"][..],
            &["--records", "199"],
            &["--interactive", "--network"],
            &["--interactive", "--users", "3"],
            &["--network", "--study", "2"],
        ] {
            assert!(
                Options::try_parse_from(["keyboard"].iter().chain(wrong)).is_err(),
                "{wrong:?}"
            );
        }
        let own = ["keyboard", "--quick", "--data", "mine", "--model", "public-v1.safetensors"];
        assert_eq!(Options::parse_from(own).scale().users, usize::MAX);
        let some = own.iter().copied().chain(["--users", "3"]);
        assert_eq!(Options::parse_from(some).scale().users, 3);
    }
}
