//! All that is measured of one device.

use anyhow::Result;
use tern_engine::{AdapterSummary, Device, Isa, Kind, Outcome, Source};

use crate::budget::Budget;
use crate::kernels::{self, Variants};
use crate::report::{self, Adapter};
use crate::{Watch, models, roofline, training};

/// What to measure. Shares of the roofline need the roofline.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What the device can do at most.
    pub roofline: bool,
    /// All cases of every kernel against the reference.
    pub checks: Option<Variants>,
    /// Kernels, timed.
    pub kernels: bool,
    /// Training steps, timed.
    pub training: bool,
    /// How long things may take.
    pub budget: Budget,
    /// Threads of the `Cpu` device.
    pub threads: usize,
    /// Kernels and models whose name contains this or, after `!`, does not; all if left out.
    pub filter: Option<&'a str>,
}

impl Request<'_> {
    /// Whether a kernel or a model is to be run.
    pub fn wanted(&self, name: &str) -> bool {
        models::is_wanted(self.filter, name)
    }
}

/// Measures a device; [`conclude`] adds what is known in the end.
///
/// # Errors
/// Device errors; if who watches fails. What is computed wrong is in the report.
pub async fn measure(
    device: &Device,
    request: &Request<'_>,
    watch: &mut impl Watch,
) -> Result<report::Device> {
    let budget = request.budget;
    let wanted = |name: &str| request.wanted(name);
    let mut measured = report::Device {
        adapter: adapter(device.summary()),
        vectors: (device.profile().kind == Kind::Cpu)
            .then(|| report::Vectors { isa: Isa::current().to_string(), threads: request.threads }),
        roofline: None,
        self_tests: Vec::new(),
        choices: Vec::new(),
        checks: Vec::new(),
        kernels: Vec::new(),
        training: Vec::new(),
        replicas: Vec::new(),
        pairs: Vec::new(),
    };
    if request.roofline {
        watch.part("the roofline");
        measured.roofline = Some(roofline::measure(device, budget).await?);
    }
    if let Some(variants) = request.checks {
        watch.part("checks of all kernels");
        measured.checks = kernels::check(device, budget, variants, wanted, watch).await;
    }
    if request.kernels {
        watch.part("kernels");
        let (roofline, checks) = (measured.roofline.as_ref(), &measured.checks);
        measured.kernels = kernels::time(device, budget, wanted, roofline, checks, watch).await?;
    }
    if request.training {
        watch.part("training steps");
        let models = models::named(request.filter);
        measured.training = training::measure(device, budget, &models, watch).await?;
    }
    Ok(measured)
}

/// Adds the choices of variants in force, and the self-tests of those that were taken up to here.
pub fn conclude(device: &Device, measured: &mut report::Device) {
    measured.choices = choices(device);
    measured.self_tests = self_tests(device);
}

/// The name of a kind in reports.
fn kind(kind: Kind) -> String {
    format!("{kind:?}").to_lowercase()
}

/// What a report says of an adapter.
pub fn adapter(summary: AdapterSummary) -> Adapter {
    let limit = |n: u64| (n != u64::MAX).then_some(n);
    Adapter {
        name: summary.name,
        kind: kind(summary.kind),
        backend: summary.backend,
        driver: summary.driver,
        max_binding: limit(summary.max_binding),
        max_buffer: limit(summary.max_buffer),
        workgroup_memory: summary.workgroup_memory,
        invocations: summary.invocations,
        subgroups: summary.subgroups,
        features: summary.features,
    }
}

fn self_tests(device: &Device) -> Vec<report::SelfTest> {
    let of = |test: tern_engine::SelfTest| {
        let (outcome, reason) = match test.outcome {
            Outcome::Passed(_) => ("passed", String::new()),
            Outcome::Failed(reason) => ("failed", reason),
            Outcome::NotRun(reason) => ("not run", reason),
        };
        report::SelfTest {
            kernel: test.kernel.into(),
            variant: test.variant.into(),
            features: test.features,
            outcome: outcome.into(),
            reason,
        }
    };
    device.self_tests().into_iter().map(of).collect()
}

fn choices(device: &Device) -> Vec<report::Choice> {
    let of = |choice: tern_engine::Choice| report::Choice {
        kernel: choice.kernel.into(),
        class: choice.class,
        variant: choice.variant.into(),
        source: match choice.source {
            Source::Shipped => "shipped",
            Source::Cache => "cache",
            Source::Measured => "measured",
        }
        .into(),
        seconds: choice.seconds,
    };
    device.choices().into_iter().map(of).collect()
}
