//! The digits-transfer demo: see `--help` and `examples/README.md`.

use tern_examples::digits::run::run;

fn main() -> anyhow::Result<()> {
    tern_examples::start(run)
}
