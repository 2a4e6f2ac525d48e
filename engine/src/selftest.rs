//! Variants that need a feature of the hardware are used only after they computed small cases
//! right on the device at hand: some drivers offer a feature and compute it wrong.

use tern_shaders::{AnyKernel, Variant};

use crate::device::{Backend, Gpu};
use crate::ops::{Case, cases_of};
use crate::{Device, Error, Result};

/// Elements of a case that a self-test computes; the reference is slow.
const SMALL: usize = 1 << 16;
/// Cases of a variant.
const ENOUGH: usize = 8;

/// What became of a self-test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of so many cases were right.
    Passed(usize),
    /// What was wrong. The variant is not used.
    Failed(String),
    /// Why there was nothing to run.
    NotRun(String),
}

/// A variant that needs a feature, and whether it computes right on a device.
#[derive(Clone, Debug)]
pub struct SelfTest {
    /// Kernel name.
    pub kernel: &'static str,
    /// Variant name.
    pub variant: &'static str,
    /// The features it needs.
    pub features: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// The variants that need a feature.
fn fast() -> impl Iterator<Item = (&'static AnyKernel, &'static Variant)> {
    tern_shaders::kernels()
        .flat_map(|kernel| kernel.variants.iter().map(move |variant| (kernel, variant)))
        .filter(|(_, variant)| !variant.features.is_empty())
}

/// Small cases that the variant fits.
fn cases(kernel: &'static AnyKernel, variant: &'static Variant) -> Vec<Case> {
    let small = |case: &Case| case.buffers.iter().map(|b| b.len()).sum::<usize>() <= SMALL;
    // What any device takes, a software one, too.
    let fits = |case: &Case| variant.takes(bytemuck::cast_slice(&case.params), true);
    let own = cases_of(kernel).into_iter().filter(|case| small(case) && fits(case));
    own.take(ENOUGH).map(|case| Case { kernel, ..case.variant(variant.name) }).collect()
}

impl Device {
    /// Runs the self-test of a variant, which [`Device::compile`] asks for before its first use, and
    /// remembers what became of it.
    pub(crate) async fn admit(
        &self,
        gpu: &Gpu,
        kernel: &'static AnyKernel,
        variant: &'static Variant,
    ) -> Result<()> {
        let outcome = self.run_self_test(kernel, variant).await?;
        match &outcome {
            Outcome::Passed(cases) => {
                log::info!("{} ({}): {cases} cases right", kernel.name, variant.name);
            }
            Outcome::Failed(reason) | Outcome::NotRun(reason) => {
                log::warn!("{} ({}) is not used: {reason}", kernel.name, variant.name);
            }
        }
        gpu.trust().insert(kernel, variant, outcome);
        Ok(())
    }

    async fn run_self_test(
        &self,
        kernel: &'static AnyKernel,
        variant: &'static Variant,
    ) -> Result<Outcome> {
        let cases = cases(kernel, variant);
        if cases.is_empty() {
            return Ok(Outcome::NotRun("no case is small enough".into()));
        }
        for case in &cases {
            // A case compiles a call that names its variant, which asks for no self-test again.
            match Box::pin(case.check_async(self)).await {
                Ok(_) => {}
                Err(e @ Error::Kernel { .. }) => return Ok(Outcome::Failed(e.to_string())),
                Err(e) => return Err(e),
            }
        }
        Ok(Outcome::Passed(cases.len()))
    }

    /// Runs the self-test of every variant that needs a feature, as the first use of each would, and
    /// anew where one is known.
    ///
    /// # Errors
    /// Device errors; a wrong result is an [`Outcome`].
    pub async fn self_test_async(&self) -> Result<Vec<SelfTest>> {
        if let Backend::Gpu(gpu) = &*self.0 {
            for (kernel, variant) in fast().filter(|(_, variant)| gpu.supports(variant)) {
                self.admit(gpu, kernel, variant).await?;
            }
        }
        Ok(self.self_tests())
    }

    /// What is known of every variant that needs a feature: of those that plans took, now or, where
    /// the device has a folder for what is kept, in an earlier process.
    pub fn self_tests(&self) -> Vec<SelfTest> {
        let of = |(kernel, variant): (&'static AnyKernel, &'static Variant)| {
            let names: Vec<String> = variant.features.iter().map(|f| format!("{f:?}")).collect();
            let features = names.join(", ");
            let outcome = match &*self.0 {
                Backend::Gpu(gpu) if gpu.supports(variant) => {
                    let known = gpu.trust().outcome(kernel, variant).cloned();
                    known.unwrap_or_else(|| Outcome::NotRun("no plan took it".into()))
                }
                _ => Outcome::NotRun(format!("the device has no {features}")),
            };
            SelfTest { kernel: kernel.name, variant: variant.name, features, outcome }
        };
        fast().map(of).collect()
    }

    /// Self-tests that this process ran on the device, for tests that count them.
    pub fn self_tests_run(&self) -> usize {
        match &*self.0 {
            Backend::Gpu(gpu) => gpu.trust().run(),
            _ => 0,
        }
    }

    /// [`Device::self_test_async`], waiting.
    ///
    /// # Errors
    /// As [`Device::self_test_async`].
    #[cfg(feature = "blocking")]
    pub fn self_test(&self) -> Result<Vec<SelfTest>> {
        self.wait(self.self_test_async())
    }
}

#[cfg(test)]
mod tests {
    use tern_shaders::Feature;
    use tern_shaders::kernels::pointwise::SCALE;

    use super::*;
    use crate::ops::testing::software;

    /// A variant of a kernel whose shader has been changed and asks for a feature.
    fn variant(name: &'static str, change: impl Fn(&str) -> String) -> Variant {
        let plain = &SCALE.variants[0];
        Variant {
            name,
            source: Box::leak(change(plain.source).into_boxed_str()),
            features: &[Feature::Subgroup],
            ..*plain
        }
    }

    /// The scaling of a vector with a variant before the plain one.
    fn with(first: Variant) -> &'static AnyKernel {
        let plain = Variant { features: &[], ..variant("plain", str::to_string) };
        Box::leak(Box::new(AnyKernel {
            name: SCALE.name,
            fields: SCALE.fields,
            bindings: SCALE.bindings,
            variants: Box::leak(Box::new([first, plain])),
            reference_f32: SCALE.reference_f32,
            reference_f64: SCALE.reference_f64,
        }))
    }

    #[test]
    fn a_variant_that_computes_wrong_is_not_used() {
        let wrong = with(variant("wrong", |text| text.replace("p.factor", "(p.factor + 1.0)")));
        let right = with(variant("right", str::to_string));
        for (name, device) in software() {
            for (kernel, used) in [(wrong, "plain"), (right, "right")] {
                let used = if *name == "portable" { "plain" } else { used };
                for case in cases_of(kernel).into_iter().take(2) {
                    let case = Case { kernel, ..case };
                    case.check(device).unwrap();
                    let budget = std::time::Duration::ZERO;
                    let variant = case.time(device, budget).unwrap().variant;
                    assert_eq!(variant, Some(used), "{name}");
                }
            }
        }
    }

    #[test]
    fn fast_variants_are_right_or_say_why_they_were_not_run() {
        for (name, device) in software() {
            let tests = device.self_test().unwrap();
            assert!(tests.iter().any(|t| t.kernel == "half/nt"), "{name}");
            for test in tests {
                let wrong = matches!(test.outcome, Outcome::Failed(_));
                assert!(!wrong, "{name}: {test:?}");
                let run = matches!(test.outcome, Outcome::Passed(_));
                assert!(*name == "software" || !run, "{name}: {test:?}");
            }
        }
        let mut on_cpu = Device::cpu().self_test().unwrap().into_iter();
        assert!(on_cpu.all(|t| matches!(t.outcome, Outcome::NotRun(_))));
    }
}
