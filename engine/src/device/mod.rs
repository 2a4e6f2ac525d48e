//! Devices: a GPU through wgpu, the CPU, or the reference in `f64`, behind one interface.

mod call;
mod crew;
#[cfg_attr(not(feature = "gpu"), path = "no_gpu.rs")]
mod gpu;
mod host;
mod select;
mod workers;

use std::sync::Arc;

use tern_shaders::{AnyKernel, Element, Variant};

use crate::tuning::Tuning;
use crate::{Error, Interrupt, Result};
pub(crate) use call::{Buffer, Call, Sequence, Slot, Storage, words};
pub(crate) use gpu::Gpu;
pub(crate) use host::Host;
pub use select::{AdapterSummary, DeviceOptions, Kind, Select, adapters};

/// Something that runs plans. Cheap to clone; clones are the same device.
#[derive(Clone)]
pub struct Device(pub(crate) Arc<Backend>);

pub(crate) enum Backend {
    Cpu(Host<f32>),
    ReferenceF64(Host<f64>),
    Gpu(Box<Gpu>),
}

/// What a graph needs to know of the device it is recorded for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// What the device is.
    pub kind: Kind,
    /// Largest storage binding in bytes.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Whether whole-sequence kernels pay: always on the CPU.
    pub whole_sequence: bool,
}

/// Host data of either element type.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Floats.
    F32(Vec<f32>),
    /// Words.
    U32(Vec<u32>),
}

impl Data {
    /// As many zeros.
    pub fn zeros(element: Element, len: usize) -> Self {
        match element {
            Element::F32 => Data::F32(vec![0.0; len]),
            Element::U32 => Data::U32(vec![0; len]),
        }
    }

    /// So many copies, one after another, then anything up to `len` elements.
    pub(crate) fn repeated(&self, copies: usize, len: usize) -> Self {
        fn fill<T: Copy + Default>(values: &[T], copies: usize, len: usize) -> Vec<T> {
            let mut all = values.repeat(copies);
            all.resize(len, T::default());
            all
        }
        match self {
            Data::F32(x) => Data::F32(fill(x, copies, len)),
            Data::U32(x) => Data::U32(fill(x, copies, len)),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(x) => x.len(),
            Data::U32(x) => x.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Its element type.
    pub fn element(&self) -> Element {
        match self {
            Data::F32(_) => Element::F32,
            Data::U32(_) => Element::U32,
        }
    }

    /// The floats.
    ///
    /// # Errors
    /// [`Error::Value`] for words.
    pub fn floats(self) -> Result<Vec<f32>> {
        match self {
            Data::F32(values) => Ok(values),
            Data::U32(_) => Err(Error::value("element type", "U32", "F32")),
        }
    }

    /// The words.
    ///
    /// # Errors
    /// [`Error::Value`] for floats.
    pub fn words(self) -> Result<Vec<u32>> {
        match self {
            Data::U32(values) => Ok(values),
            Data::F32(_) => Err(Error::value("element type", "F32", "U32")),
        }
    }
}

/// Calls compiled for a device, to be replayed.
pub(crate) enum Program {
    Cpu(host::Program<f32>),
    ReferenceF64(host::Program<f64>),
    Gpu(gpu::Program),
}

/// Time a kernel took, from [`crate::Plan::profile`].
#[derive(Clone, Debug)]
pub struct Timing {
    /// Kernel name.
    pub kernel: String,
    /// Step label, in order of the plan.
    pub label: String,
    /// Seconds on the device.
    pub seconds: f64,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.name())
    }
}

impl Device {
    /// The CPU, with fast functions where they exist and references elsewhere.
    pub fn cpu() -> Self {
        Device(Arc::new(Backend::Cpu(Host::fast())))
    }

    /// The CPU by reference implementations alone: what its fast functions are held against.
    pub fn reference() -> Self {
        Device(Arc::new(Backend::Cpu(Host::reference())))
    }

    /// Every plan in `f64`, by reference implementations alone: what tests hold every other device
    /// against. Slow.
    pub fn reference_f64() -> Self {
        Device(Arc::new(Backend::ReferenceF64(Host::reference())))
    }

    /// Opens the device that the options select.
    ///
    /// # Errors
    /// [`Error::NoDevice`](crate::Error::NoDevice) names what was found;
    /// [`Error::OpenDevice`](crate::Error::OpenDevice) if the driver refuses.
    pub async fn open(options: &DeviceOptions) -> Result<Self> {
        select::open(options).await
    }

    /// The device named by the environment variable `TERN_DEVICE`, or the best one:
    /// discrete, then integrated, then the CPU. Blocks.
    ///
    /// # Errors
    /// As [`Device::open`].
    #[cfg(feature = "blocking")]
    pub fn from_env() -> Result<Self> {
        pollster::block_on(Self::open(&DeviceOptions::from_env()?))
    }

    /// One line that says what runs: name, kind, driver.
    pub fn name(&self) -> String {
        match &*self.0 {
            Backend::Cpu(host) => host.name(),
            Backend::ReferenceF64(_) => "Reference (f64)".into(),
            Backend::Gpu(gpu) => gpu.name(),
        }
    }

    /// What the device is and allows.
    pub fn profile(&self) -> Profile {
        match &*self.0 {
            Backend::Cpu(_) | Backend::ReferenceF64(_) => Profile {
                kind: Kind::Cpu,
                max_binding: u64::MAX,
                max_buffer: u64::MAX,
                whole_sequence: true,
            },
            Backend::Gpu(gpu) => gpu.profile(),
        }
    }

    /// Pins the variant that computes a kernel on this GPU, so that reruns and runs with
    /// other replica counts are bit-identical. Nothing to pin on the CPU.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if the kernel has no such variant.
    pub fn pin(&self, kernel: &AnyKernel, variant: &str) -> Result<()> {
        match &*self.0 {
            Backend::Gpu(gpu) => gpu.pin(kernel, variant),
            _ => Ok(()),
        }
    }

    /// Whether the device has what a GPU variant needs, whatever the parameters.
    pub fn supports(&self, variant: &Variant) -> bool {
        matches!(&*self.0, Backend::Gpu(gpu) if gpu.supports(variant))
    }

    /// Whether a variant computes these parameters right on this device: it supports the variant,
    /// which fits them, and its driver doesn't end a loop too soon.
    pub fn takes(&self, variant: &Variant, params: &[u8]) -> bool {
        matches!(&*self.0, Backend::Gpu(gpu) if gpu.takes(variant, params))
    }

    /// Whether plans are to measure variants when they are prepared.
    pub(crate) fn measures(&self) -> bool {
        matches!(&*self.0, Backend::Gpu(gpu) if gpu.tuned().mode() == Tuning::Measure)
    }

    /// What [`adapters`] says of this device.
    pub fn summary(&self) -> AdapterSummary {
        match &*self.0 {
            Backend::Gpu(gpu) => gpu.summary().clone(),
            _ => select::cpu(),
        }
    }

    /// The GPU variant that computes each call of a program, in order; empty on the CPU.
    pub(crate) fn variants(&self, program: &Program) -> Vec<&'static str> {
        match program {
            Program::Gpu(program) => program.variants(),
            _ => Vec::new(),
        }
    }

    pub(crate) async fn allocate(
        &self,
        what: &str,
        words: usize,
        element: Element,
    ) -> Result<Buffer> {
        let none = || Error::OutOfMemory {
            what: what.into(),
            needed: (words as u64).saturating_mul(4),
            available: 0,
        };
        let words = words.max(1).checked_next_multiple_of(64).ok_or_else(none)?;
        let storage = match &*self.0 {
            Backend::Cpu(_) => Storage::Cpu(host::Memory::zeroed(words, element).ok_or_else(none)?),
            Backend::ReferenceF64(_) => {
                Storage::ReferenceF64(host::Memory::zeroed(words, element).ok_or_else(none)?)
            }
            Backend::Gpu(gpu) => Storage::Gpu(gpu.allocate(what, words).await?),
        };
        Ok(Buffer { words, element, storage })
    }

    /// Allocates and fills a buffer; its length is padded to 64 words.
    pub(crate) async fn upload(&self, what: &str, data: &Data) -> Result<Buffer> {
        let buffer = self.allocate(what, data.len(), data.element()).await?;
        self.write(&buffer, 0, data)?;
        Ok(buffer)
    }

    pub(crate) fn write(&self, buffer: &Buffer, at: usize, data: &Data) -> Result<()> {
        assert_eq!(data.element(), buffer.element, "element type of the data written");
        assert!(at + data.len() <= buffer.words, "write past the end of a buffer");
        match (&buffer.storage, &*self.0) {
            (Storage::Cpu(memory), _) => memory.write(at, data),
            (Storage::ReferenceF64(memory), _) => memory.write(at, data),
            (Storage::Gpu(memory), Backend::Gpu(gpu)) => gpu.write(&memory.buffer, at, data)?,
            _ => unreachable!("buffer of another device"),
        }
        Ok(())
    }

    pub(crate) async fn read(&self, buffer: &Buffer, at: usize, words: usize) -> Result<Data> {
        match (&buffer.storage, &*self.0) {
            (Storage::Cpu(memory), _) => Ok(memory.read(at, words)),
            (Storage::ReferenceF64(memory), _) => Ok(memory.read(at, words)),
            (Storage::Gpu(memory), Backend::Gpu(gpu)) => {
                gpu.read(&memory.buffer, at, words, buffer.element).await
            }
            _ => unreachable!("buffer of another device"),
        }
    }

    /// Reads floats at full precision: `f64` on the reference device.
    pub(crate) async fn read_f64(&self, buffer: &Buffer, at: usize, n: usize) -> Result<Vec<f64>> {
        if let Storage::ReferenceF64(memory) = &buffer.storage {
            return Ok(memory.reals(at, n));
        }
        Ok(match self.read(buffer, at, n).await? {
            Data::F32(x) => x.into_iter().map(f64::from).collect(),
            Data::U32(x) => x.into_iter().map(f64::from).collect(),
        })
    }

    /// Writes floats at full precision: `f64` on the reference device.
    pub(crate) fn write_f64(&self, buffer: &Buffer, at: usize, data: &[f64]) -> Result<()> {
        if let Storage::ReferenceF64(memory) = &buffer.storage {
            memory.write_reals(at, data);
            return Ok(());
        }
        self.write(buffer, at, &Data::F32(data.iter().map(|x| *x as f32).collect()))
    }

    /// Copies words from one buffer to another on the device.
    pub(crate) fn copy(&self, from: &Slot, to: &Slot) -> Result<()> {
        assert_eq!(from.words, to.words, "copy between different lengths");
        match (&from.buffer.storage, &to.buffer.storage, &*self.0) {
            (Storage::Cpu(a), Storage::Cpu(b), _) => host::copy(a, from.at, b, to.at, to.words),
            (Storage::ReferenceF64(a), Storage::ReferenceF64(b), _) => {
                host::copy(a, from.at, b, to.at, to.words);
            }
            (Storage::Gpu(a), Storage::Gpu(b), Backend::Gpu(gpu)) => {
                gpu.copy(&a.buffer, from.at, &b.buffer, to.at, to.words)?;
            }
            _ => unreachable!("buffers of another device"),
        }
        Ok(())
    }

    /// Replicas computed at once, each by calls of its own; `None` where a call computes all
    /// replicas of a tile.
    pub(crate) fn workers(&self) -> Option<usize> {
        match &*self.0 {
            Backend::Cpu(host) => host.workers(),
            Backend::ReferenceF64(host) => host.workers(),
            Backend::Gpu(_) => None,
        }
    }

    /// Compiles sequences of calls. Those that run side by side each use another of the sets
    /// of `scratch` buffers instead of the first set, to which the calls are bound.
    pub(crate) async fn compile(
        &self,
        sequences: Vec<Sequence>,
        scratch: &[Vec<Buffer>],
    ) -> Result<Program> {
        for call in sequences.iter().flat_map(|sequence| &sequence.calls) {
            self.check(call)?;
        }
        Ok(match &*self.0 {
            Backend::Cpu(host) => Program::Cpu(host.compile(sequences, scratch)),
            Backend::ReferenceF64(host) => Program::ReferenceF64(host.compile(sequences, scratch)),
            Backend::Gpu(gpu) => {
                let calls: Vec<Call> =
                    sequences.into_iter().flat_map(|sequence| sequence.calls).collect();
                gpu.prepare(&calls).await;
                while let Some((kernel, variant)) = gpu.untested(&calls) {
                    self.admit(gpu, kernel, variant).await?;
                }
                Program::Gpu(gpu.compile(calls).await?)
            }
        })
    }

    /// Replays a program, `times` over.
    pub(crate) async fn replay(&self, program: &Program, times: usize) -> Result<()> {
        self.replay_until(program, times, &Interrupt::new()).await
    }

    /// Replays a program, `times` over or, once the interrupt is set, less often.
    pub(crate) async fn replay_until(
        &self,
        program: &Program,
        times: usize,
        interrupt: &Interrupt,
    ) -> Result<()> {
        match (program, &*self.0) {
            (Program::Cpu(program), _) => program.run(times, interrupt),
            (Program::ReferenceF64(program), _) => program.run(times, interrupt),
            (Program::Gpu(program), Backend::Gpu(gpu)) => {
                gpu.replay(program, times, interrupt).await?;
            }
            _ => unreachable!("program of another device"),
        }
        Ok(())
    }

    /// Seconds by the device's own clock that `times` replays take in one submit; `None` where
    /// it has none.
    pub(crate) async fn clocked(&self, program: &Program, times: usize) -> Result<Option<f64>> {
        match (program, &*self.0) {
            (Program::Gpu(program), Backend::Gpu(gpu)) => gpu.clocked(program, times).await,
            _ => Ok(None),
        }
    }

    pub(crate) async fn profile_program(&self, program: &Program) -> Result<Vec<Timing>> {
        match (program, &*self.0) {
            (Program::Cpu(program), _) => Ok(program.profile()),
            (Program::ReferenceF64(program), _) => Ok(program.profile()),
            (Program::Gpu(program), Backend::Gpu(gpu)) => gpu.profile_program(program).await,
            _ => unreachable!("program of another device"),
        }
    }

    /// Waits on the calling thread for what one of the `async` calls on this device gives.
    ///
    /// # Errors
    /// Those of the call; [`Error::Value`] in a browser, whose threads can't wait for its GPU.
    #[cfg(feature = "blocking")]
    pub fn wait<T, E: From<Error>>(
        &self,
        future: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        match &*self.0 {
            Backend::Gpu(gpu) => gpu.wait(future),
            _ => pollster::block_on(future),
        }
    }

    /// Lets the driver make progress; native callers of the `async` methods that don't use
    /// the blocking wrappers call this from time to time.
    pub fn poll(&self) {
        if let Backend::Gpu(gpu) = &*self.0 {
            gpu.poll();
        }
    }

    /// Ends a GPU device as a driver reset would: every later call on it gives
    /// [`Error::DeviceLost`](crate::Error::DeviceLost). For tests of recovery.
    pub fn destroy(&self) {
        if let Backend::Gpu(gpu) = &*self.0 {
            gpu.destroy();
        }
    }

    /// Submits made so far, for tests that count them.
    pub fn submits(&self) -> u64 {
        match &*self.0 {
            Backend::Gpu(gpu) => gpu.submits(),
            _ => 0,
        }
    }

    /// GPU buffers, bind groups and pipelines created so far, for tests that count them.
    pub fn created(&self) -> u64 {
        match &*self.0 {
            Backend::Gpu(gpu) => gpu.created(),
            _ => 0,
        }
    }

    /// Bytes of GPU buffers that are in use, read-back not counted, for tests and benches that
    /// hold [`Memory`](crate::Memory) against them.
    pub fn allocated(&self) -> u64 {
        match &*self.0 {
            Backend::Gpu(gpu) => gpu.allocated(),
            _ => 0,
        }
    }
}
