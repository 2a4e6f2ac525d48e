//! Plans on a GPU through wgpu: memory, pipelines, recording and submission.

mod adapter;
mod compile;
mod pipelines;
mod quirks;
mod replay;
mod trust;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::oneshot;
use tern_shaders::Element;

use super::{AdapterSummary, Data, DeviceOptions, Kind, Profile};
use crate::tuning::Table;
use crate::{Error, Result, cache};
pub(crate) use adapter::{Adapter, enumerate};
pub(crate) use compile::Program;
use pipelines::Pipelines;
use replay::Pace;
pub(crate) use trust::Trust;

/// A storage buffer, counted as long as it lives.
#[derive(Clone)]
pub(crate) struct Memory {
    pub buffer: wgpu::Buffer,
    claim: Arc<Claim>,
}

/// Bytes held on a device, given back when dropped.
struct Claim {
    total: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

pub(crate) struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    features: wgpu::Features,
    checked: bool,
    pace: Pace,
    pipelines: Pipelines,
    pins: Mutex<HashMap<&'static str, &'static str>>,
    trust: Mutex<Trust>,
    tuned: Mutex<Table>,
    summary: AdapterSummary,
    faults: Arc<Mutex<Option<Error>>>,
    /// Read-back buffers that are not in use.
    staging: Mutex<Vec<wgpu::Buffer>>,
    submits: AtomicU64,
    created: AtomicU64,
    allocated: Arc<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes(words: usize) -> u64 {
    4 * words as u64
}

impl Gpu {
    pub fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: wgpu::AdapterInfo,
        summary: AdapterSummary,
        options: &DeviceOptions,
        submit_seconds: f64,
    ) -> Self {
        let folder = options.cache.as_deref();
        let users = cache::folder();
        let tuned = Table::open(folder.or(users.as_deref()), options.tuning, &summary);
        let faults = Arc::new(Mutex::new(None));
        let sink = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&sink)
                .get_or_insert(Error::Kernel { kernel: "wgpu".into(), reason: error.to_string() });
        }));
        let sink = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            *lock(&sink) = Some(Error::DeviceLost(format!("{reason:?}: {message}")));
        });
        Gpu {
            features: device.features(),
            pipelines: Pipelines::open(&device, folder, &summary),
            trust: Mutex::new(Trust::open(folder, &summary, options.checked)),
            device,
            queue,
            info,
            checked: options.checked,
            pace: Pace::new(submit_seconds),
            pins: Mutex::default(),
            tuned: Mutex::new(tuned),
            summary,
            faults,
            staging: Mutex::default(),
            submits: AtomicU64::new(0),
            created: AtomicU64::new(0),
            allocated: Arc::default(),
        }
    }

    pub fn name(&self) -> String {
        let i = &self.info;
        let driver = [i.driver.as_str(), i.driver_info.as_str()].join(" ");
        let named = format!("{} ({:?}, {:?}", i.name, Kind::from(i.device_type), i.backend);
        match driver.trim() {
            "" => format!("{named})"),
            driver => format!("{named}, {driver})"),
        }
    }

    pub fn profile(&self) -> Profile {
        let limits = self.device.limits();
        Profile {
            kind: self.info.device_type.into(),
            max_binding: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            max_buffer: limits.max_buffer_size,
            whole_sequence: false,
        }
    }

    pub fn summary(&self) -> &AdapterSummary {
        &self.summary
    }

    /// The choices measured on this device or one like it.
    pub fn tuned(&self) -> std::sync::MutexGuard<'_, Table> {
        lock(&self.tuned)
    }

    pub fn submits(&self) -> u64 {
        self.submits.load(Ordering::Relaxed)
    }

    pub fn created(&self) -> u64 {
        self.created.load(Ordering::Relaxed)
    }

    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Ends the device, as a driver reset would.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    pub fn poll(&self) {
        // An error here shows as a fault of the next call that waits for the device.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    #[cfg(feature = "blocking")]
    pub fn wait<T, E: From<Error>>(
        &self,
        future: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let mut future = std::pin::pin!(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            if let std::task::Poll::Ready(result) = future.as_mut().poll(&mut context) {
                return result;
            }
            if cfg!(target_family = "wasm") {
                let expected = "the call that is async: a browser's threads can't wait for its GPU";
                return Err(Error::value("call", "one that waits", expected).into());
            }
            let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
        }
    }

    fn fault(&self) -> Result<()> {
        let mut fault = lock(&self.faults);
        match &*fault {
            Some(Error::DeviceLost(reason)) => Err(Error::DeviceLost(reason.clone())),
            Some(_) => Err(fault.take().unwrap_or_else(|| Error::DeviceLost(String::new()))),
            None => Ok(()),
        }
    }

    fn claim(&self, words: usize) -> Claim {
        let (total, bytes) = (self.allocated.clone(), bytes(words));
        total.fetch_add(bytes, Ordering::Relaxed);
        Claim { total, bytes }
    }

    fn buffer(&self, label: &str, words: usize, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.created.fetch_add(1, Ordering::Relaxed);
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes(words),
            usage,
            mapped_at_creation: false,
        })
    }

    /// Whether it allocated this memory.
    pub fn owns(&self, memory: &Memory) -> bool {
        Arc::ptr_eq(&memory.claim.total, &self.allocated)
    }

    pub async fn allocate(&self, what: &str, words: usize) -> Result<Memory> {
        self.fault()?;
        // How much of it a call binds is another matter.
        let allowed = self.device.limits().max_buffer_size;
        let needed = bytes(words);
        if needed > allowed {
            return Err(Error::OutOfMemory { what: what.into(), needed, available: allowed });
        }
        let (memory, validation) = {
            let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
            let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let usage = wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST;
            let buffer = self.buffer(what, words, usage);
            ((buffer, memory.pop()), validation.pop())
        };
        let (buffer, memory) = memory;
        if memory.await.is_some() {
            return Err(Error::OutOfMemory { what: what.into(), needed, available: 0 });
        }
        if let Some(error) = validation.await {
            self.fault()?;
            return Err(Error::Kernel { kernel: what.into(), reason: error.to_string() });
        }
        Ok(Memory { buffer, claim: Arc::new(self.claim(words)) })
    }

    pub fn write(&self, buffer: &wgpu::Buffer, at: usize, data: &Data) -> Result<()> {
        let data: &[u8] = match data {
            Data::F32(x) => bytemuck::cast_slice(x),
            Data::U32(x) => bytemuck::cast_slice(x),
        };
        self.fault()?;
        self.queue.write_buffer(buffer, bytes(at), data);
        Ok(())
    }

    pub fn copy(
        &self,
        from: &wgpu::Buffer,
        at: usize,
        to: &wgpu::Buffer,
        to_at: usize,
        words: usize,
    ) -> Result<()> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, bytes(at), to, bytes(to_at), bytes(words));
        self.submit(encoder);
        self.fault()
    }

    fn submit(&self, encoder: wgpu::CommandEncoder) {
        self.submits.fetch_add(1, Ordering::Relaxed);
        self.queue.submit([encoder.finish()]);
    }

    pub async fn read(
        &self,
        buffer: &wgpu::Buffer,
        at: usize,
        words: usize,
        element: Element,
    ) -> Result<Data> {
        if words == 0 {
            return Ok(match element {
                Element::F32 => Data::F32(Vec::new()),
                Element::U32 => Data::U32(Vec::new()),
            });
        }
        self.fault()?;
        let staging = self.take_staging(words);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, bytes(at), &staging, 0, bytes(words));
        self.submit(encoder);
        let (done, mapped) = oneshot::channel();
        staging.map_async(wgpu::MapMode::Read, 0..bytes(words), move |result| {
            // The receiver is gone only if the reading future was dropped.
            let _ = done.send(result);
        });
        let lost = |reason: String| Error::DeviceLost(reason);
        mapped.await.map_err(|e| lost(e.to_string()))?.map_err(|e| lost(e.to_string()))?;
        self.fault()?;
        let view = staging.get_mapped_range(0..bytes(words)).map_err(|e| lost(e.to_string()))?;
        let data = match element {
            Element::F32 => Data::F32(bytemuck::pod_collect_to_vec(&view)),
            Element::U32 => Data::U32(bytemuck::pod_collect_to_vec(&view)),
        };
        drop(view);
        staging.unmap();
        lock(&self.staging).push(staging);
        Ok(data)
    }

    /// A read-back buffer of at least so many words: one that is free, or a new one.
    fn take_staging(&self, words: usize) -> wgpu::Buffer {
        let mut free = lock(&self.staging);
        let fitting = |b: &(usize, &wgpu::Buffer)| b.1.size() >= bytes(words);
        let best = free.iter().enumerate().filter(fitting).min_by_key(|(_, b)| b.size());
        if let Some((at, _)) = best {
            return free.swap_remove(at);
        }
        // The free ones are all too small; one large buffer serves better than many.
        free.pop();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.buffer("read-back", words.next_power_of_two(), usage)
    }
}
