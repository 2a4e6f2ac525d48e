//! The demo of private labels from teachers: see `--help` and `examples/README.md`.

use tern_examples::teacher::run::run;

fn main() -> anyhow::Result<()> {
    tern_examples::start(run)
}
