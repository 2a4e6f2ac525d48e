//! Cases: inputs of a kernel on which every device is held against the f64 reference.

use tern_shaders::kernels::random::{pcg4d, uniform};
use tern_shaders::{Access, AnyKernel, Arg, Element, Kernel, Real, Reference};

use crate::device::{self, Call, Data, Program, Slot};
use crate::{Device, Error, Result};

/// One input of a kernel.
#[derive(Clone)]
pub struct Case {
    /// Sizes, for the tables.
    pub label: String,
    /// The kernel.
    pub kernel: &'static AnyKernel,
    /// Its parameter struct as words.
    pub params: Vec<u32>,
    /// Number of replicas.
    pub replicas: usize,
    /// The GPU variant that must compute it; `None` leaves the choice to the device.
    pub variant: Option<&'static str>,
    /// What each binding holds at the start, in binding order. Buffers that are only written
    /// hold something else than zero, so that an element left out shows.
    pub buffers: Vec<Data>,
    /// Largest error allowed, relative to the largest magnitude of the result (at least 1).
    /// Words must be equal, but for [`Case::words_may_differ`].
    pub tolerance: f64,
    /// Fraction of the result's words that may differ (by rounding of a float on the way).
    pub words_may_differ: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written, each once.
    pub bytes: u64,
}

/// What a check found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Check {
    /// Largest error of a float, relative to the largest magnitude of the result (at least 1).
    pub error: f64,
    /// Fraction of words that differ.
    pub words_differing: f64,
}

/// Every buffer of a case after the f64 reference.
pub struct Expected(pub(super) Vec<Vec<f64>>);

impl Case {
    /// A case with the usual tolerance of 1e-5.
    pub fn new<P: bytemuck::Pod>(
        kernel: &'static Kernel<P>,
        label: impl Into<String>,
        params: &P,
        replicas: usize,
        buffers: Vec<Data>,
    ) -> Self {
        Self::of_words(kernel.any(), label.into(), device::words(params), replicas, buffers)
    }

    /// [`Case::new`] for a kernel and parameters as they are recorded.
    pub(crate) fn of_words(
        kernel: &'static AnyKernel,
        label: String,
        params: Vec<u32>,
        replicas: usize,
        buffers: Vec<Data>,
    ) -> Self {
        let bytes = buffers.iter().map(|b| 4 * b.len() as u64).sum();
        Case {
            label,
            kernel,
            params,
            replicas,
            variant: None,
            buffers,
            tolerance: 1e-5,
            words_may_differ: 0.0,
            flops: 0,
            bytes,
        }
    }

    /// Sets the tolerance.
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Has a variant compute it on a GPU, whatever is pinned or preferred.
    pub fn variant(mut self, name: &'static str) -> Self {
        self.variant = Some(name);
        self
    }

    /// Sets the number of floating-point operations.
    pub fn flops(mut self, flops: u64) -> Self {
        self.flops = flops;
        self
    }

    /// Runs the reference in a number type and returns the buffers after it; words as floats.
    fn reference<F: Real + Reference>(&self) -> Vec<Vec<f64>> {
        enum Typed<F> {
            Real(Vec<F>),
            Word(Vec<u32>),
        }
        let mut typed: Vec<Typed<F>> = self
            .buffers
            .iter()
            .map(|b| match b {
                Data::F32(x) => Typed::Real(x.iter().map(|x| F::of(*x)).collect()),
                Data::U32(x) => Typed::Word(x.clone()),
            })
            .collect();
        let mut args: Vec<Arg<'_, F>> = typed
            .iter_mut()
            .zip(self.kernel.bindings)
            .map(|(t, binding)| match (t, binding.access) {
                (Typed::Real(x), Access::Read) => Arg::Real(x),
                (Typed::Real(x), Access::ReadWrite) => Arg::RealMut(x),
                (Typed::Word(x), Access::Read) => Arg::Word(x),
                (Typed::Word(x), Access::ReadWrite) => Arg::WordMut(x),
            })
            .collect();
        self.kernel.reference::<F>()(bytemuck::cast_slice(&self.params), self.replicas, &mut args);
        typed
            .into_iter()
            .map(|t| match t {
                Typed::Real(x) => x.into_iter().map(|x| x.to_f64().unwrap_or(f64::NAN)).collect(),
                Typed::Word(x) => x.into_iter().map(f64::from).collect(),
            })
            .collect()
    }

    /// The kernel call on buffers of its own, ready to be replayed.
    pub(super) async fn compile(&self, device: &Device) -> Result<(Program, Vec<Slot>)> {
        let mut slots = Vec::new();
        for (data, binding) in self.buffers.iter().zip(self.kernel.bindings) {
            let buffer = device.upload(binding.name, data).await?;
            slots.push(Slot { buffer, at: 0, words: data.len() });
        }
        let call = Call {
            kernel: self.kernel,
            label: format!("{} {}", self.kernel.name, self.label),
            params: self.params.clone(),
            slots: slots.clone(),
            replicas: self.replicas,
            variant: self.variant,
        };
        Ok((device.compile(vec![vec![call].into()], &[]).await?, slots))
    }

    /// Runs the case on a device.
    pub(super) async fn on(&self, device: &Device) -> Result<Vec<Vec<f64>>> {
        let (program, slots) = self.compile(device).await?;
        device.replay(&program, 1).await?;
        let mut results = Vec::new();
        for slot in &slots {
            results.push(device.read_f64(&slot.buffer, 0, slot.words).await?);
        }
        Ok(results)
    }

    /// What the fast functions of the CPU compute, which the tests hold against the reference: where
    /// the reference would take too long.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the case breaks an interface rule.
    pub async fn expected_of_cpu_async(&self) -> Result<Expected> {
        Ok(Expected(self.on(&Device::cpu()).await?))
    }

    /// [`Case::expected_of_cpu_async`], waiting.
    ///
    /// # Errors
    /// As [`Case::expected_of_cpu_async`].
    #[cfg(feature = "blocking")]
    pub fn expected_of_cpu(&self) -> Result<Expected> {
        Device::cpu().wait(self.expected_of_cpu_async())
    }

    /// What the f64 reference computes: to be used for several devices, where it takes long.
    pub fn expected(&self) -> Expected {
        Expected(self.reference::<f64>())
    }

    /// Runs the case on a device and compares every buffer it writes with the f64
    /// reference's.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the error exceeds the tolerance, naming the buffer and the place;
    /// device errors.
    pub async fn check_async(&self, device: &Device) -> Result<Check> {
        self.check_against_async(device, &self.expected()).await
    }

    /// As [`Case::check_async`], with what [`Case::expected`] gave.
    ///
    /// # Errors
    /// As [`Case::check_async`].
    pub async fn check_against_async(&self, device: &Device, expected: &Expected) -> Result<Check> {
        let found = self.on(device).await?;
        let mut check = Check::default();
        for ((binding, expected), found) in self.kernel.bindings.iter().zip(&expected.0).zip(&found)
        {
            // What no device can write may hold anything, NaN too.
            if binding.access == Access::Read {
                continue;
            }
            let fault = |at: usize| Error::Kernel {
                kernel: format!("{} {}", self.kernel.name, self.label),
                reason: format!(
                    "{}[{at}] is {:e}, the reference has {:e}",
                    binding.name, found[at], expected[at]
                ),
            };
            if binding.element == Element::U32 {
                let wrong: Vec<usize> =
                    (0..found.len()).filter(|i| found[*i] != expected[*i]).collect();
                let fraction = wrong.len() as f64 / found.len().max(1) as f64;
                check.words_differing = check.words_differing.max(fraction);
                if fraction > self.words_may_differ {
                    return Err(fault(wrong[0]));
                }
                continue;
            }
            let magnitude = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
            for at in 0..found.len() {
                let error = (found[at] - expected[at]).abs() / magnitude;
                let wrong = error > self.tolerance || error.is_nan();
                if wrong && found[at] != expected[at] {
                    return Err(fault(at));
                }
                check.error = check.error.max(error);
            }
        }
        Ok(check)
    }

    /// [`Case::check_async`], waiting.
    ///
    /// # Errors
    /// As [`Case::check_async`].
    #[cfg(feature = "blocking")]
    pub fn check(&self, device: &Device) -> Result<Check> {
        device.wait(self.check_async(device))
    }

    /// [`Case::check_against_async`], waiting.
    ///
    /// # Errors
    /// As [`Case::check_against_async`].
    #[cfg(feature = "blocking")]
    pub fn check_against(&self, device: &Device, expected: &Expected) -> Result<Check> {
        device.wait(self.check_against_async(device, expected))
    }
}

/// The rows that a case sums, and where they end: all, or for 1 some in the middle.
pub(super) fn part(rows: u32, number: u32) -> (u32, u32) {
    if number == 1 { (rows / 3, rows - rows / 4) } else { (0, rows) }
}

/// Random floats in [−scale, scale), the same for the same key.
pub(crate) fn noise(n: usize, scale: f32, key: u32) -> Data {
    let at = |i: u32| scale * (2.0 * uniform(pcg4d([i, key, 5, 9])[0]) - 1.0);
    Data::F32((0..n as u32).map(at).collect())
}

/// Random words below `bound`, the same for the same key; each 16th is `u32::MAX`, which
/// stands for padding.
pub(crate) fn codes(n: usize, bound: u32, key: u32) -> Data {
    let at = |i: u32| match pcg4d([i, key, 3, 7]) {
        [hole, ..] if hole < 1 << 28 => u32::MAX,
        [_, word, ..] => word % bound,
    };
    Data::U32((0..n as u32).map(at).collect())
}
