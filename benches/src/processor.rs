//! The processor that a run uses: how many threads of it, and which of its vectors.

use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use clap::Args;
use tern_engine::Isa;

use crate::{host, report};

/// How much of the processor to use.
#[derive(Args, Clone, Copy, Default)]
pub struct Processor {
    /// Vectors that the `Cpu` device computes with: avx512, avx2, neon or base. Default: what
    /// `TERN_ISA` names, else the widest that the processor has.
    #[arg(long, value_name = "SET")]
    isa: Option<Isa>,
    /// Threads of the `Cpu` device and of the peers. Default: the cores that the process may use.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Processor {
    /// Makes this process use it from now on: to be called before the first device is opened.
    ///
    /// # Errors
    /// If the processor lacks the instruction set, or threads are running already.
    pub fn apply(self) -> Result<()> {
        if let Some(isa) = self.isa {
            isa.pin()?;
        }
        if let Some(threads) = self.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
            pool.build_global().with_context(|| format!("starting {threads} threads"))?;
        }
        Ok(())
    }
}

/// Threads that compute.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// What a run is on, for the terminal: the processor's name, threads and vectors.
pub fn describe() -> String {
    format!("{}, {}, {}", host::host().cpu, report::threads(threads()), Isa::current())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        processor: Processor,
    }

    fn parse(arguments: &[&str]) -> Result<Processor, String> {
        let all = ["benches"].iter().chain(arguments);
        Cli::try_parse_from(all).map(|cli| cli.processor).map_err(|e| e.to_string())
    }

    #[test]
    fn sets_and_threads_are_read_and_nonsense_is_refused() {
        let given = parse(&["--isa", "base", "--threads", "2"]).unwrap();
        assert_eq!(given.isa, Some(Isa::Base));
        assert_eq!(given.threads.map(NonZeroUsize::get), Some(2));
        let wrong = parse(&["--isa", "sse9"]).err().unwrap();
        assert!(wrong.contains("avx512, avx2, neon or base"), "{wrong}");
        let none = parse(&["--threads", "0"]).err().unwrap();
        assert!(none.contains("0"), "{none}");
    }

    #[test]
    fn a_set_that_the_processor_lacks_is_refused() {
        let has: Vec<Isa> = Isa::available().collect();
        let lacking = [Isa::Neon, Isa::Avx2].into_iter().find(|isa| !has.contains(isa)).unwrap();
        let given = parse(&["--isa", &lacking.to_string()]).unwrap();
        let error = given.apply().unwrap_err().to_string();
        assert!(error.contains(&lacking.to_string()) && error.contains("base"), "{error}");
    }
}
