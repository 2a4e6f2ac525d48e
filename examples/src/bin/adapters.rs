//! Low-rank adapters of a transformer, federated: see `--help` and `examples/README.md`.

use tern_examples::adapters::run::run;

fn main() -> anyhow::Result<()> {
    tern_examples::start(run)
}
