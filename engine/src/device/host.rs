//! Plans on the CPU: host memory, and kernels as functions.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tern_shaders::{Access, Arg, Element, Kernel, Real, Twin, TwinFn};

use super::{Buffer, Call, Data, Slot, Storage, Timing};

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
    pub fn zeroed(words: usize, element: Element) -> Self {
        Memory(Arc::new(RwLock::new(match element {
            Element::F32 => Typed::Real(vec![F::zero(); words]),
            Element::U32 => Typed::Word(vec![0; words]),
        })))
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
pub(crate) trait HostReal: Real + Twin {
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
            Storage::Oracle(memory) => memory,
            _ => unreachable!("buffer of another device"),
        }
    }
}

/// The CPU as a device.
pub(crate) struct Host<F: Real> {
    fast: fn(&Kernel) -> Option<TwinFn<F>>,
    name: &'static str,
}

impl Host<f32> {
    pub fn fast() -> Self {
        Host { fast: crate::cpu::fast, name: "Cpu" }
    }
}

impl<F: HostReal> Host<F> {
    pub fn twins() -> Self {
        Host { fast: |_| None, name: "Cpu (twins)" }
    }

    pub fn name(&self) -> String {
        format!("{}, {} threads", self.name, rayon::current_num_threads())
    }

    pub fn compile(&self, calls: Vec<Call>) -> Program<F> {
        let steps = calls
            .into_iter()
            .map(|call| Step {
                function: (self.fast)(call.kernel).unwrap_or_else(|| call.kernel.twin::<F>()),
                call,
            })
            .collect();
        Program { steps }
    }
}

struct Step<F: Real> {
    function: TwinFn<F>,
    call: Call,
}

pub(crate) struct Program<F: Real> {
    steps: Vec<Step<F>>,
}

enum Guard<'a, F> {
    Read(RwLockReadGuard<'a, Typed<F>>),
    Write(RwLockWriteGuard<'a, Typed<F>>),
}

impl<F: HostReal> Step<F> {
    fn run(&self) {
        let call = &self.call;
        let mut guards: Vec<Guard<'_, F>> = call
            .slots
            .iter()
            .zip(call.kernel.bindings)
            .map(|(slot, binding)| match binding.access {
                Access::Read => Guard::Read(F::memory(&slot.buffer).lock()),
                Access::ReadWrite => Guard::Write(F::memory(&slot.buffer).lock_mut()),
            })
            .collect();
        let mut args: Vec<Arg<'_, F>> = guards
            .iter_mut()
            .zip(&call.slots)
            .map(|(guard, Slot { at, words, .. })| match guard {
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
        (self.function)(bytemuck::cast_slice(&call.params), call.replicas, &mut args);
    }
}

impl<F: HostReal> Program<F> {
    pub fn run(&self) {
        self.steps.iter().for_each(Step::run);
    }

    pub fn profile(&self) -> Vec<Timing> {
        self.steps
            .iter()
            .map(|step| {
                let start = Instant::now();
                step.run();
                Timing {
                    kernel: step.call.kernel.name.into(),
                    label: step.call.label.clone(),
                    seconds: start.elapsed().as_secs_f64(),
                }
            })
            .collect()
    }
}
