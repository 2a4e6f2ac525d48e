//! Plans on the CPU: host memory, and kernels as functions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tern_shaders::{Access, AnyKernel, Arg, Element, Real, Reference, ReferenceFn, state};
use web_time::Instant;

use super::crew::Crew;
use super::workers;
use super::{Buffer, Call, Data, Sequence, Slot, Storage, Timing};
use crate::Interrupt;

/// Typed host memory. A lock a buffer: a kernel call reads some and writes others.
pub(crate) struct Memory<F>(Arc<RwLock<Typed<F>>>);

enum Typed<F> {
    Real(Vec<F>),
    Word(Vec<u32>),
}

impl<F> Clone for Memory<F> {
    fn clone(&self) -> Self {
        Memory(self.0.clone())
    }
}

impl<F: Real> Memory<F> {
    /// `None` if there is not so much memory.
    pub fn zeroed(words: usize, element: Element) -> Option<Self> {
        // Asked for beforehand: `vec!` ends the process, but has zeros from the system for nothing.
        Vec::<F>::new().try_reserve_exact(words).ok()?;
        Some(Memory(Arc::new(RwLock::new(match element {
            Element::F32 => Typed::Real(vec![F::zero(); words]),
            Element::U32 => Typed::Word(vec![0; words]),
        }))))
    }

    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    // A poisoned lock means that a kernel panicked on another thread; the numbers in the
    // buffer are as good as after any other interrupted step.
    fn lock(&self) -> RwLockReadGuard<'_, Typed<F>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_mut(&self) -> RwLockWriteGuard<'_, Typed<F>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self, at: usize, data: &Data) {
        match (&mut *self.lock_mut(), data) {
            (Typed::Real(to), Data::F32(from)) => {
                for (to, from) in to[at..].iter_mut().zip(from) {
                    *to = F::of(*from);
                }
            }
            (Typed::Word(to), Data::U32(from)) => to[at..at + from.len()].copy_from_slice(from),
            _ => unreachable!("element types were compared"),
        }
    }

    pub fn read(&self, at: usize, n: usize) -> Data {
        match &*self.lock() {
            Typed::Real(x) => Data::F32(x[at..at + n].iter().map(|x| x.f32()).collect()),
            Typed::Word(x) => Data::U32(x[at..at + n].to_vec()),
        }
    }

    pub fn reals(&self, at: usize, n: usize) -> Vec<f64> {
        match &*self.lock() {
            Typed::Real(x) => {
                x[at..at + n].iter().map(|x| x.to_f64().unwrap_or(f64::NAN)).collect()
            }
            Typed::Word(x) => x[at..at + n].iter().map(|x| f64::from(*x)).collect(),
        }
    }

    pub fn write_reals(&self, at: usize, data: &[f64]) {
        if let Typed::Real(to) = &mut *self.lock_mut() {
            for (to, from) in to[at..].iter_mut().zip(data) {
                *to = F::from(*from).unwrap_or_else(F::nan);
            }
        }
    }
}

pub(crate) fn copy<F: Real>(
    from: &Memory<F>,
    at: usize,
    to: &Memory<F>,
    to_at: usize,
    words: usize,
) {
    if from.same(to) {
        match &mut *to.lock_mut() {
            Typed::Real(x) => x.copy_within(at..at + words, to_at),
            Typed::Word(x) => x.copy_within(at..at + words, to_at),
        }
        return;
    }
    match (&*from.lock(), &mut *to.lock_mut()) {
        (Typed::Real(a), Typed::Real(b)) => {
            b[to_at..to_at + words].copy_from_slice(&a[at..at + words]);
        }
        (Typed::Word(a), Typed::Word(b)) => {
            b[to_at..to_at + words].copy_from_slice(&a[at..at + words]);
        }
        _ => unreachable!("copy between element types"),
    }
}

/// Number types whose memory [`Storage`] can hold.
pub(crate) trait HostReal: Real + Reference {
    fn memory(buffer: &Buffer) -> &Memory<Self>;
}

impl HostReal for f32 {
    fn memory(buffer: &Buffer) -> &Memory<f32> {
        match &buffer.storage {
            Storage::Cpu(memory) => memory,
            _ => unreachable!("buffer of another device"),
        }
    }
}

impl HostReal for f64 {
    fn memory(buffer: &Buffer) -> &Memory<f64> {
        match &buffer.storage {
            Storage::ReferenceF64(memory) => memory,
            _ => unreachable!("buffer of another device"),
        }
    }
}

/// The CPU as a device.
pub(crate) struct Host<F: Real> {
    fast: fn(&AnyKernel) -> Option<ReferenceFn<F>>,
    name: &'static str,
    /// Whether threads take whole sequences of calls.
    parallel: bool,
}

/// A number of threads, in words.
pub(crate) fn threads(count: usize) -> String {
    format!("{count} thread{}", if count == 1 { "" } else { "s" })
}

impl Host<f32> {
    pub fn fast() -> Self {
        Host { fast: crate::cpu::fast, name: "Cpu", parallel: true }
    }
}

impl<F: HostReal> Host<F> {
    pub fn reference() -> Self {
        Host { fast: |_| None, name: "Cpu (references)", parallel: false }
    }

    pub fn name(&self) -> String {
        format!("{}, {}", self.name, threads(rayon::current_num_threads()))
    }

    /// Sequences that run at once; `None` where one computes all replicas of a tile.
    pub fn workers(&self) -> Option<usize> {
        self.parallel.then(rayon::current_num_threads)
    }

    pub fn compile(&self, sequences: Vec<Sequence>, scratch: &[Vec<Buffer>]) -> Program<F> {
        let workers = self.workers().unwrap_or(1);
        let workers = if scratch.is_empty() { workers } else { workers.min(scratch.len()) };
        let own = scratch.first().map_or(&[][..], Vec::as_slice);
        let step = |call: Call| Step {
            function: (self.fast)(call.kernel).unwrap_or_else(|| call.kernel.reference::<F>()),
            args: call.slots.iter().map(|slot| Argument::new(slot, own)).collect(),
            kernel: call.kernel,
            label: call.label,
            params: call.params,
            replicas: call.replicas,
        };
        Program {
            workers: workers.min(sequences.len()).max(1),
            sequences: sequences
                .into_iter()
                .map(|s| Steps {
                    steps: s.calls.into_iter().map(step).collect(),
                    records: s.records.map(|slot| Argument::new(&slot, &[])),
                })
                .collect(),
            scratch: scratch
                .iter()
                .map(|set| set.iter().map(|buffer| F::memory(buffer).clone()).collect())
                .collect(),
        }
    }
}

/// Words that a step touches from which on its kernels are large enough for all threads.
const LARGE: usize = 1 << 22;

/// Words that runs touch from which on they are worth going to the threads' pool.
const WORTH_A_POOL: usize = 1 << 18;

/// Of so many threads, what they are worth at one large sequence.
const EFFICIENCY: f64 = 0.85;

/// Memory of a worker: what it puts in the place of the first worker's scratch buffers.
type Scratch<F> = [Memory<F>];

/// What a kernel's argument is bound to.
struct Argument<F> {
    place: Place<F>,
    at: usize,
    words: usize,
}

enum Place<F> {
    Own(Memory<F>),
    /// A scratch buffer of the worker that runs the call.
    Scratch(usize),
}

impl<F: HostReal> Argument<F> {
    fn new(slot: &Slot, scratch: &[Buffer]) -> Self {
        let memory = F::memory(&slot.buffer);
        let place = match scratch.iter().position(|buffer| F::memory(buffer).same(memory)) {
            Some(at) => Place::Scratch(at),
            None => Place::Own(memory.clone()),
        };
        Argument { place, at: slot.at, words: slot.words }
    }

    fn memory<'a>(&'a self, scratch: &'a Scratch<F>) -> &'a Memory<F> {
        match &self.place {
            Place::Own(memory) => memory,
            Place::Scratch(at) => &scratch[*at],
        }
    }
}

struct Step<F: Real> {
    function: ReferenceFn<F>,
    kernel: &'static AnyKernel,
    label: String,
    params: Vec<u32>,
    replicas: usize,
    args: Vec<Argument<F>>,
}

/// Calls in order, and the state records of the replicas that they compute.
struct Steps<F: Real> {
    steps: Vec<Step<F>>,
    records: Option<Argument<F>>,
}

pub(crate) struct Program<F: Real> {
    sequences: Vec<Steps<F>>,
    /// By worker.
    scratch: Vec<Vec<Memory<F>>>,
    workers: usize,
}

enum Guard<'a, F> {
    Read(RwLockReadGuard<'a, Typed<F>>),
    Write(RwLockWriteGuard<'a, Typed<F>>),
}

impl<F: HostReal> Step<F> {
    fn run(&self, scratch: &Scratch<F>) {
        let mut guards: Vec<Guard<'_, F>> = self
            .args
            .iter()
            .zip(self.kernel.bindings)
            .map(|(arg, binding)| match binding.access {
                Access::Read => Guard::Read(arg.memory(scratch).lock()),
                Access::ReadWrite => Guard::Write(arg.memory(scratch).lock_mut()),
            })
            .collect();
        let mut args: Vec<Arg<'_, F>> = guards
            .iter_mut()
            .zip(&self.args)
            .map(|(guard, Argument { at, words, .. })| match guard {
                Guard::Read(guard) => match &**guard {
                    Typed::Real(x) => Arg::Real(&x[*at..at + words]),
                    Typed::Word(x) => Arg::Word(&x[*at..at + words]),
                },
                Guard::Write(guard) => match &mut **guard {
                    Typed::Real(x) => Arg::RealMut(&mut x[*at..at + words]),
                    Typed::Word(x) => Arg::WordMut(&mut x[*at..at + words]),
                },
            })
            .collect();
        (self.function)(bytemuck::cast_slice(&self.params), self.replicas, &mut args);
    }
}

impl<F: HostReal> Steps<F> {
    /// Steps that `times` runs make, in which the longest of its replicas is not at its limit.
    fn cost(&self, times: usize) -> u64 {
        let Some(Argument { place: Place::Own(memory), at, words }) = &self.records else {
            return times as u64;
        };
        let Typed::Word(x) = &*memory.lock() else { return times as u64 };
        let records = x[*at..at + words].chunks(state::WORDS);
        let left = records.map(|r| match r[state::ACTIVE] {
            0 => 0,
            _ => r[state::LIMIT].saturating_sub(r[state::STEP]).min(times as u32),
        });
        left.max().unwrap_or(0).into()
    }

    /// Words that a step reads and writes.
    fn words(&self) -> usize {
        self.steps.iter().flat_map(|step| &step.args).map(|arg| arg.words).sum()
    }

    /// Whether all its replicas are at their limit, so that a step would change nothing.
    fn rests(&self) -> bool {
        let Some(Argument { place: Place::Own(memory), at, words }) = &self.records else {
            return false;
        };
        match &*memory.lock() {
            Typed::Word(x) => {
                x[*at..at + words].chunks(state::WORDS).all(|record| record[state::ACTIVE] == 0)
            }
            Typed::Real(_) => false,
        }
    }

    fn run(&self, times: usize, scratch: &Scratch<F>, crew: &Crew, interrupt: &Interrupt) {
        for _ in 0..times {
            if self.rests() || interrupt.is_set() {
                return;
            }
            for step in &self.steps {
                crew.call();
                step.run(scratch);
            }
        }
    }
}

/// Runs sequences one after another, each on all threads. What is worth it runs on one of these
/// threads itself: every kernel that shares its work out would else wake one and then be woken by
/// it, which takes longer than many kernels do.
fn together<F: HostReal>(
    sequences: &[&Steps<F>],
    times: usize,
    scratch: &Scratch<F>,
    interrupt: &Interrupt,
) {
    let run = |crew: Crew| sequences.iter().for_each(|s| s.run(times, scratch, &crew, interrupt));
    let words: usize = sequences.iter().map(|s| s.words()).sum();
    if words.saturating_mul(times) < WORTH_A_POOL {
        run(Crew::none());
    } else {
        rayon::scope(|_| run(Crew::here()));
    }
}

impl<F: HostReal> Program<F> {
    fn scratch(&self, worker: usize) -> &Scratch<F> {
        self.scratch.get(worker).map_or(&[], Vec::as_slice)
    }

    /// Every sequence `times` over, until the interrupt is set.
    pub fn run(&self, times: usize, interrupt: &Interrupt) {
        if self.workers == 1 {
            let all: Vec<_> = self.sequences.iter().collect();
            return together(&all, times, self.scratch(0), interrupt);
        }
        let costs: Vec<u64> = self.sequences.iter().map(|s| s.cost(times)).collect();
        let large = self.sequences.first().is_some_and(|s| s.words() > LARGE);
        let gain = if large { EFFICIENCY * self.workers as f64 } else { 1.0 };
        let shares = workers::share(&costs, self.workers, gain);
        let first: Vec<_> = shares.together.iter().map(|i| &self.sequences[*i]).collect();
        together(&first, times, self.scratch(0), interrupt);
        let alone = shares.alone;
        let next = AtomicUsize::new(0);
        workers::each(self.workers.min(alone.len()), &|worker| {
            let crew = Crew::here();
            while let Some(i) = alone.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.sequences[*i].run(times, self.scratch(worker), &crew, interrupt);
            }
        });
    }

    pub fn profile(&self) -> Vec<Timing> {
        let time = |step: &Step<F>| {
            let start = Instant::now();
            step.run(self.scratch(0));
            Timing {
                kernel: step.kernel.name.into(),
                label: step.label.clone(),
                seconds: start.elapsed().as_secs_f64(),
            }
        };
        let steps = self.sequences.iter().flat_map(|sequence| &sequence.steps);
        rayon::scope(|_| steps.map(time).collect())
    }
}
