//! The recommender demo: see `--help` and `examples/README.md`.

use clap::Parser;
use tern_examples::recommender::{options::Options, run::run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse(), &mut std::io::stdout())
}
