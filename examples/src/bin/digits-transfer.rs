//! The digits-transfer demo: see `--help` and `examples/README.md`.

use clap::Parser;
use tern_examples::digits::{options::Options, run::run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse(), &mut std::io::stdout())
}
