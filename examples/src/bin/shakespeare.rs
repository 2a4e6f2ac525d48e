//! Federated training on Shakespeare's roles: see `--help` and `examples/README.md`.

use tern_examples::shakespeare::run::run;

fn main() -> anyhow::Result<()> {
    tern_examples::start(run)
}
