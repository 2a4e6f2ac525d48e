//! The keyboard demo: see `--help` and `examples/README.md`.

use tern_examples::keyboard::run::run;

fn main() -> anyhow::Result<()> {
    tern_examples::start(run)
}
