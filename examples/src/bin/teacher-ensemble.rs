//! The demo of private labels from teachers: see `--help` and `examples/README.md`.

use clap::Parser;
use tern_examples::teacher::{options::Options, run::run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse(), &mut std::io::stdout())
}
