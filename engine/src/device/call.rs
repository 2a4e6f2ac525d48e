//! Memory on a device, and kernel calls bound to it.

use tern_shaders::{Access, AnyKernel};

use super::{Backend, Device, gpu, host};
use crate::{Element, Error, Result};

/// Memory on a device.
#[derive(Clone)]
pub(crate) struct Buffer {
    pub words: usize,
    pub element: Element,
    pub storage: Storage,
}

#[derive(Clone)]
pub(crate) enum Storage {
    Cpu(host::Memory<f32>),
    ReferenceF64(host::Memory<f64>),
    Gpu(gpu::Memory),
}

/// A part of a buffer bound to one argument of a kernel.
#[derive(Clone)]
pub(crate) struct Slot {
    pub buffer: Buffer,
    /// First word; a multiple of 64.
    pub at: usize,
    pub words: usize,
}

/// One kernel call, ready to be compiled for a device.
#[derive(Clone)]
pub(crate) struct Call {
    pub kernel: &'static AnyKernel,
    pub label: String,
    /// The parameter struct as words, which also aligns it.
    pub params: Vec<u32>,
    pub slots: Vec<Slot>,
    pub replicas: usize,
    /// The GPU variant that must compute it; `None` leaves the choice to the device.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "the CPU has no variants"))]
    pub variant: Option<&'static str>,
}

/// A kernel's parameter struct as [`Call::params`] has it.
pub(crate) fn words(params: &impl bytemuck::Pod) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(std::slice::from_ref(params))
}

/// Calls in order. A program's sequences share no memory that one of them writes but scratch, so
/// that they may run side by side.
pub(crate) struct Sequence {
    pub calls: Vec<Call>,
    /// State records of its replicas; where all rest, the calls may be left out.
    pub records: Option<Slot>,
}

impl From<Vec<Call>> for Sequence {
    fn from(calls: Vec<Call>) -> Self {
        Sequence { calls, records: None }
    }
}

impl Buffer {
    pub(crate) fn same(&self, other: &Buffer) -> bool {
        match (&self.storage, &other.storage) {
            (Storage::Cpu(a), Storage::Cpu(b)) => a.same(b),
            (Storage::ReferenceF64(a), Storage::ReferenceF64(b)) => a.same(b),
            (Storage::Gpu(a), Storage::Gpu(b)) => a.buffer == b.buffer,
            _ => false,
        }
    }
}

impl Device {
    /// Whether the device can reach a buffer.
    pub(crate) fn owns(&self, buffer: &Buffer) -> bool {
        match (&*self.0, &buffer.storage) {
            (Backend::Cpu(_), Storage::Cpu(_))
            | (Backend::ReferenceF64(_), Storage::ReferenceF64(_)) => true,
            (Backend::Gpu(gpu), Storage::Gpu(memory)) => gpu.owns(memory),
            _ => false,
        }
    }

    /// The rules a call must keep on every device; breaking one is a bug in a wrapper, but for
    /// memory of another device, which callers may bring.
    pub(super) fn check(&self, call: &Call) -> Result<()> {
        let fault = |reason: String| Err(Error::Kernel { kernel: call.label.clone(), reason });
        if call.slots.len() != call.kernel.bindings.len() {
            return fault(format!(
                "{} buffers bound, {} wants {}",
                call.slots.len(),
                call.kernel.name,
                call.kernel.bindings.len()
            ));
        }
        if call.params.len() != call.kernel.fields.len() {
            return fault(format!("{} takes another parameter struct", call.kernel.name));
        }
        for (i, (slot, binding)) in call.slots.iter().zip(call.kernel.bindings).enumerate() {
            if !self.owns(&slot.buffer) {
                return fault(format!("{} is memory of another device", binding.name));
            }
            if slot.buffer.element != binding.element {
                return fault(format!("{} holds {:?}", binding.name, slot.buffer.element));
            }
            if slot.at + slot.words > slot.buffer.words || !slot.at.is_multiple_of(64) {
                return fault(format!(
                    "{} binds past its buffer or off a multiple of 64",
                    binding.name
                ));
            }
            for (other, its) in call.slots[..i].iter().zip(call.kernel.bindings) {
                let writes = [binding, its].iter().any(|b| b.access == Access::ReadWrite);
                if writes && other.buffer.same(&slot.buffer) {
                    return fault(format!("{} and {} are one buffer", its.name, binding.name));
                }
            }
        }
        Ok(())
    }
}
