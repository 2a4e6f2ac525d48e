//! What became of self-tests, in this process and in others before it.

use std::collections::BTreeMap;
use std::path::Path;

use tern_shaders::{AnyKernel, Variant, kernels};

use crate::cache::{self, Kept};
use crate::{AdapterSummary, Outcome};

/// Kernel and variant.
type Name = (&'static str, &'static str);
type Outcomes = BTreeMap<Name, Outcome>;

/// What makes a driver's shaders of WGSL: another version makes others.
const WRITER: &str = "wgpu 30";

/// Variants that need a feature, by what became of their self-tests.
pub(crate) struct Trust {
    outcomes: Outcomes,
    kept: Option<Kept>,
    run: usize,
}

impl Trust {
    /// What the folder has of an adapter, whose shaders have bounds checks or not.
    pub fn open(folder: Option<&Path>, adapter: &AdapterSummary, checked: bool) -> Self {
        let what = if checked { "self-tests-checked" } else { "self-tests" };
        let kept = folder.map(|folder| Kept::new(folder, what, adapter));
        Trust { outcomes: kept.as_ref().map(read).unwrap_or_default(), kept, run: 0 }
    }

    /// What is known of a variant.
    pub fn outcome(&self, kernel: &AnyKernel, variant: &Variant) -> Option<&Outcome> {
        self.outcomes.get(&(kernel.name, variant.name))
    }

    /// Remembers what became of a self-test.
    pub fn insert(&mut self, kernel: &AnyKernel, variant: &Variant, outcome: Outcome) {
        self.run += 1;
        self.outcomes.insert((kernel.name, variant.name), outcome);
        let Some(kept) = &self.kept else { return };
        // Another process may have tested others meanwhile.
        let mut all = read(kept);
        all.extend(self.outcomes.iter().map(|(name, outcome)| (*name, outcome.clone())));
        kept.write(all.iter().filter_map(row).collect::<String>().as_bytes());
    }

    /// Self-tests that this process ran on the device.
    pub fn run(&self) -> usize {
        self.run
    }
}

fn fingerprint(kernel: &AnyKernel, variant: &Variant) -> u64 {
    let text = variant.wgsl();
    cache::fingerprint([WRITER, kernel.name, variant.name, &text].map(str::as_bytes))
}

fn named(kernel: &str, variant: &str) -> Option<(&'static AnyKernel, &'static Variant)> {
    let kernel = kernels().find(|k| k.name == kernel)?;
    Some((kernel, kernel.variants.iter().find(|v| v.name == variant)?))
}

/// Those of today's shaders.
fn read(kept: &Kept) -> Outcomes {
    let content = kept.read().unwrap_or_default();
    std::str::from_utf8(&content).unwrap_or_default().lines().filter_map(parse).collect()
}

/// The line that is kept; none where nothing was run.
fn row(((kernel, variant), outcome): (&Name, &Outcome)) -> Option<String> {
    let (kernel, variant) = named(kernel, variant)?;
    let outcome = match outcome {
        Outcome::Passed(cases) => format!("passed\t{cases}"),
        Outcome::Failed(reason) => format!("failed\t{}", reason.replace(['\t', '\n', '\r'], " ")),
        Outcome::NotRun(_) => return None,
    };
    let own = fingerprint(kernel, variant);
    Some(format!("{own:016x}\t{}\t{}\t{outcome}\n", kernel.name, variant.name))
}

fn parse(row: &str) -> Option<(Name, Outcome)> {
    let mut fields = row.splitn(5, '\t');
    let own = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (kernel, variant) = named(fields.next()?, fields.next()?)?;
    let outcome = match (fields.next()?, fields.next()?) {
        ("passed", cases) => Outcome::Passed(cases.parse().ok()?),
        ("failed", reason) => Outcome::Failed(reason.into()),
        _ => return None,
    };
    (own == fingerprint(kernel, variant)).then_some(((kernel.name, variant.name), outcome))
}

#[cfg(test)]
mod tests {
    use tern_shaders::kernels::matmul::{NN, NT};

    use super::*;

    fn first(kernel: &'static AnyKernel) -> (&'static AnyKernel, &'static Variant) {
        (kernel, kernel.variants.iter().find(|v| !v.features.is_empty()).unwrap())
    }

    #[test]
    fn outcomes_outlive_the_process_and_processes_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let adapter = crate::Device::cpu().summary();
        let open = |checked| Trust::open(Some(folder.path()), &adapter, checked);
        let ((nn, a), (nt, b)) = (first(&NN), first(&NT));
        // Neither knows what the other one has learned.
        let (mut one, mut other) = (open(false), open(false));
        let failed = Outcome::Failed("c[0] is 1,\tthe reference has 2\n".into());
        one.insert(nn, a, Outcome::Passed(7));
        other.insert(nt, b, failed);
        assert_eq!((one.run(), other.outcome(nn, a)), (1, None));
        let later = open(false);
        assert_eq!((later.run(), later.outcome(nn, a)), (0, Some(&Outcome::Passed(7))));
        let failed = Outcome::Failed("c[0] is 1, the reference has 2 ".into());
        assert_eq!(later.outcome(nt, b), Some(&failed));
        // Shaders with bounds checks are others.
        assert_eq!(open(true).outcome(nn, a), None);
        assert_eq!(Trust::open(None, &adapter, false).outcome(nn, a), None);
    }

    #[test]
    fn a_row_of_another_shader_or_none_says_nothing() {
        let (kernel, variant) = first(&NN);
        let name = (kernel.name, variant.name);
        let own = row((&name, &Outcome::Passed(3))).unwrap();
        assert_eq!(parse(own.trim_end()), Some((name, Outcome::Passed(3))));
        let digit = if own.starts_with('0') { "1" } else { "0" };
        let other = format!("{digit}{}", &own[1..]);
        for text in [other.as_str(), "", "passed", &own.replace("passed", "tried"), "0\ta\tb\tc\td"]
        {
            assert_eq!(parse(text.trim_end()), None, "{text:?}");
        }
        assert_eq!(row((&name, &Outcome::NotRun("no case is small enough".into()))), None);
    }

    /// A program may be built with a later minor version, whose shaders are the same by its promise.
    #[test]
    fn the_writer_is_the_version_in_use() {
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
        let Ok(lock) = std::fs::read_to_string(lock) else { return };
        let own = lock.split("[[package]]").find(|p| p.contains("name = \"wgpu\"\n")).unwrap();
        let version = format!("version = \"{}.", WRITER.split_once(' ').unwrap().1);
        assert!(own.contains(&version), "{WRITER}, but in use is {own}");
    }
}
