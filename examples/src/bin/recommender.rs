//! The recommender demo: see `--help` and `examples/README.md`.

use tern_examples::recommender::run::run;

fn main() -> anyhow::Result<()> {
    tern_examples::start(run)
}
