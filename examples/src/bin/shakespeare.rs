//! Federated training on Shakespeare's roles: see `--help` and `examples/README.md`.

use clap::Parser;
use tern_examples::shakespeare::{options::Options, run::run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse(), &mut std::io::stdout())
}
