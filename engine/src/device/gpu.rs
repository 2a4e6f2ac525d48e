//! Plans on a GPU through wgpu: memory, pipelines, recording and submission.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_channel::oneshot;
use tern_shaders::{Access, Element, Feature, Kernel, Variant};

use super::{Call, Data, Kind, Profile, Storage, Timing};
use crate::{Error, Result};

pub(crate) struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    features: wgpu::Features,
    checked: bool,
    pace: Pace,
    layouts: Mutex<HashMap<&'static str, Layout>>,
    pipelines: Mutex<HashMap<(&'static str, &'static str), wgpu::ComputePipeline>>,
    pins: Mutex<HashMap<&'static str, &'static str>>,
    faults: Arc<Mutex<Option<Error>>>,
    /// Read-back buffers that are not in use.
    staging: Mutex<Vec<wgpu::Buffer>>,
    submits: AtomicU64,
    created: AtomicU64,
    allocated: AtomicU64,
}

#[derive(Clone)]
struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

struct Step {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    kernel: &'static str,
    label: String,
}

/// Calls with their pipelines and bind groups.
pub(crate) struct Program {
    steps: Vec<Step>,
}

/// How many dispatches a submit may hold, learned from what submits took, so that none runs
/// long enough for a watchdog.
struct Pace {
    budget: f64,
    seconds_per_call: Mutex<f64>,
}

impl Pace {
    fn calls(&self) -> usize {
        let rate = *lock(&self.seconds_per_call);
        ((self.budget / rate) as usize).clamp(1, 100_000)
    }

    fn learn(&self, calls: usize, seconds: f64) {
        let mut rate = lock(&self.seconds_per_call);
        let seen = (seconds / calls.max(1) as f64).max(1e-7);
        // Slower at once, faster by and by: one quick submit must not make the next one long.
        *rate = if seen > *rate { seen } else { 0.7 * *rate + 0.3 * seen };
    }
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
        checked: bool,
        submit_seconds: f64,
    ) -> Self {
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
            device,
            queue,
            info,
            checked,
            pace: Pace { budget: submit_seconds, seconds_per_call: Mutex::new(1e-3) },
            layouts: Mutex::default(),
            pipelines: Mutex::default(),
            pins: Mutex::default(),
            faults,
            staging: Mutex::default(),
            submits: AtomicU64::new(0),
            created: AtomicU64::new(0),
            allocated: AtomicU64::new(0),
        }
    }

    pub fn name(&self) -> String {
        let i = &self.info;
        let driver = [i.driver.as_str(), i.driver_info.as_str()].join(" ");
        format!("{} ({:?}, {:?}, {})", i.name, Kind::from(i.device_type), i.backend, driver.trim())
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
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            if let std::task::Poll::Ready(result) = future.as_mut().poll(&mut context) {
                return result;
            }
            let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
        }
    }

    pub fn pin(&self, kernel: &Kernel, variant: &str) -> Result<()> {
        let Some(found) = kernel.variants.iter().find(|v| v.name == variant) else {
            let names: Vec<_> = kernel.variants.iter().map(|v| v.name).collect();
            return Err(Error::value(
                format!("variant of {}", kernel.name),
                variant,
                format!("one of {}", names.join(", ")),
            ));
        };
        lock(&self.pins).insert(kernel.name, found.name);
        Ok(())
    }

    fn has(&self, feature: Feature) -> bool {
        self.features.contains(match feature {
            Feature::Subgroup => wgpu::Features::SUBGROUP,
            Feature::F16 => wgpu::Features::SHADER_F16,
            Feature::CooperativeMatrix => wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
        })
    }

    /// The pinned variant if it fits, else the first that does; barriers are avoided on
    /// software devices, where they cost more than they save.
    fn variant(&self, kernel: &'static Kernel, params: &[u8]) -> Result<&'static Variant> {
        let fits = |v: &&Variant| v.features.iter().all(|f| self.has(*f)) && (v.fits)(params);
        let pin = lock(&self.pins).get(kernel.name).copied();
        let all = || kernel.variants.iter().filter(fits);
        let software = self.info.device_type == wgpu::DeviceType::Cpu;
        let preferred = match pin {
            Some(name) => all().find(|v| v.name == name),
            None => all().find(|v| !(software && v.workgroup_memory)),
        };
        preferred.or_else(|| all().next()).ok_or_else(|| Error::Kernel {
            kernel: kernel.name.into(),
            reason: format!("no variant for these parameters on {}", self.info.name),
        })
    }

    fn fault(&self) -> Result<()> {
        let mut fault = lock(&self.faults);
        match &*fault {
            Some(Error::DeviceLost(reason)) => Err(Error::DeviceLost(reason.clone())),
            Some(_) => Err(fault.take().unwrap_or_else(|| Error::DeviceLost(String::new()))),
            None => Ok(()),
        }
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

    pub async fn allocate(&self, what: &str, words: usize) -> Result<wgpu::Buffer> {
        self.fault()?;
        let limits = self.device.limits();
        let allowed = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
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
        self.allocated.fetch_add(needed, Ordering::Relaxed);
        Ok(buffer)
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

    fn layout(&self, kernel: &'static Kernel) -> Layout {
        let mut layouts = lock(&self.layouts);
        if let Some(layout) = layouts.get(kernel.name) {
            return layout.clone();
        }
        let entry = |binding: usize, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
        entries.extend(kernel.bindings.iter().enumerate().map(|(i, binding)| {
            let read_only = binding.access == Access::Read;
            entry(i + 1, wgpu::BufferBindingType::Storage { read_only })
        }));
        let group = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(kernel.name),
            entries: &entries,
        });
        let pipeline = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        });
        self.created.fetch_add(2, Ordering::Relaxed);
        let layout = Layout { group, pipeline };
        layouts.insert(kernel.name, layout.clone());
        layout
    }

    async fn pipeline(
        &self,
        kernel: &'static Kernel,
        variant: &'static Variant,
    ) -> Result<wgpu::ComputePipeline> {
        if let Some(pipeline) = lock(&self.pipelines).get(&(kernel.name, variant.name)) {
            return Ok(pipeline.clone());
        }
        let layout = self.layout(kernel);
        let name = format!("{} ({})", kernel.name, variant.name);
        let (pipeline, error) = {
            let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
            let source = wgpu::ShaderModuleDescriptor {
                label: Some(&name),
                source: wgpu::ShaderSource::Wgsl(variant.wgsl().into()),
            };
            let module = if self.checked {
                self.device.create_shader_module(source)
            } else {
                // SAFETY: our own shaders; every kernel's cases also run with checks on, and
                // kernels that index by data clamp the index themselves.
                unsafe {
                    self.device.create_shader_module_trusted(
                        source,
                        wgpu::ShaderRuntimeChecks::unchecked(),
                    )
                }
            };
            let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&name),
                layout: Some(&layout.pipeline),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            (pipeline, scope.pop())
        };
        if let Some(error) = error.await {
            self.fault()?;
            return Err(Error::Kernel { kernel: name, reason: error.to_string() });
        }
        self.created.fetch_add(1, Ordering::Relaxed);
        lock(&self.pipelines).insert((kernel.name, variant.name), pipeline.clone());
        Ok(pipeline)
    }

    pub async fn compile(&self, calls: Vec<Call>) -> Result<Program> {
        self.fault()?;
        // All parameter structs in one uniform buffer, each at a multiple of 256 bytes.
        const STRIDE: usize = 64;
        let mut words = vec![0u32; STRIDE * calls.len().max(1)];
        for (at, call) in calls.iter().enumerate() {
            words[at * STRIDE..][..call.params.len()].copy_from_slice(&call.params);
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = self.buffer("parameters of the calls", words.len(), usage);
        self.allocated.fetch_add(bytes(words.len()), Ordering::Relaxed);
        self.queue.write_buffer(&uniforms, 0, bytemuck::cast_slice(&words));
        let max_groups = self.device.limits().max_compute_workgroups_per_dimension;
        let mut steps = Vec::with_capacity(calls.len());
        for (at, call) in calls.into_iter().enumerate() {
            let params = bytemuck::cast_slice(&call.params);
            let variant = self.variant(call.kernel, params)?;
            let [x, y] = (variant.grid)(params, variant);
            let grid = [x, y, call.replicas as u32];
            if grid.iter().any(|n| *n > max_groups) {
                return Err(Error::Kernel {
                    kernel: call.label,
                    reason: format!("grid {grid:?} exceeds {max_groups} workgroups a dimension"),
                });
            }
            let pipeline = self.pipeline(call.kernel, variant).await?;
            let uniform = wgpu::BufferBinding {
                buffer: &uniforms,
                offset: bytes(at * STRIDE),
                size: wgpu::BufferSize::new(bytes(STRIDE)),
            };
            let mut entries = vec![wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(uniform),
            }];
            for (i, slot) in call.slots.iter().enumerate() {
                let Storage::Gpu(buffer) = &slot.buffer.storage else {
                    unreachable!("buffer of another device")
                };
                entries.push(wgpu::BindGroupEntry {
                    binding: i as u32 + 1,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer,
                        offset: bytes(slot.at),
                        size: wgpu::BufferSize::new(bytes(slot.words.next_multiple_of(4))),
                    }),
                });
            }
            self.created.fetch_add(1, Ordering::Relaxed);
            let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&call.label),
                layout: &self.layout(call.kernel).group,
                entries: &entries,
            });
            steps.push(Step { pipeline, group, grid, kernel: call.kernel.name, label: call.label });
        }
        self.fault()?;
        Ok(Program { steps })
    }

    fn record(step: &Step, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&step.pipeline);
        pass.set_bind_group(0, &step.group, &[]);
        pass.dispatch_workgroups(step.grid[0], step.grid[1], step.grid[2]);
    }

    fn completion(&self) -> oneshot::Receiver<()> {
        let (done, finished) = oneshot::channel();
        self.queue.on_submitted_work_done(move || {
            let _ = done.send(());
        });
        finished
    }

    pub async fn replay(&self, program: &Program, times: usize) -> Result<()> {
        let n = program.steps.len();
        let mut next = 0;
        // One submit runs while the next is recorded; more would only add latency.
        let mut running: Option<(oneshot::Receiver<()>, usize)> = None;
        let mut since = Instant::now();
        while next < n * times {
            let end = (next + self.pace.calls()).min(n * times);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                (next..end).for_each(|at| Self::record(&program.steps[at % n], &mut pass));
            }
            self.submit(encoder);
            let submitted = (self.completion(), end - next);
            if let Some((finished, calls)) = running.replace(submitted) {
                since = self.finish(finished, calls, since).await?;
            }
            next = end;
        }
        if let Some((finished, calls)) = running {
            self.finish(finished, calls, since).await?;
        }
        Ok(())
    }

    async fn finish(
        &self,
        finished: oneshot::Receiver<()>,
        calls: usize,
        since: Instant,
    ) -> Result<Instant> {
        let done = finished.await;
        self.fault()?;
        done.map_err(|e| Error::DeviceLost(e.to_string()))?;
        let now = Instant::now();
        self.pace.learn(calls, now.duration_since(since).as_secs_f64());
        Ok(now)
    }

    pub async fn profile_program(&self, program: &Program) -> Result<Vec<Timing>> {
        if !self.features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return self.profile_by_fence(program).await;
        }
        let mut timings = Vec::with_capacity(program.steps.len());
        let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        // A query set holds 4,096 entries at most; two a step.
        for steps in program.steps.chunks(2_048) {
            let count = 2 * steps.len() as u32;
            let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let resolved = self.buffer("profile", 2 * count as usize, usage);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            for (i, step) in steps.iter().enumerate() {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some(&step.label),
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(2 * i as u32),
                        end_of_pass_write_index: Some(2 * i as u32 + 1),
                    }),
                });
                Self::record(step, &mut pass);
            }
            encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
            self.submit(encoder);
            let Data::U32(words) =
                self.read(&resolved, 0, 2 * count as usize, Element::U32).await?
            else {
                unreachable!("words were asked for")
            };
            let ticks: &[u64] = &bytemuck::pod_collect_to_vec::<u32, u64>(&words);
            timings.extend(steps.iter().zip(ticks.chunks_exact(2)).map(|(step, t)| Timing {
                kernel: step.kernel.into(),
                label: step.label.clone(),
                seconds: t[1].saturating_sub(t[0]) as f64 * period,
            }));
        }
        Ok(timings)
    }

    async fn profile_by_fence(&self, program: &Program) -> Result<Vec<Timing>> {
        let mut timings = Vec::with_capacity(program.steps.len());
        for step in &program.steps {
            let start = Instant::now();
            let mut encoder = self.device.create_command_encoder(&Default::default());
            Self::record(step, &mut encoder.begin_compute_pass(&Default::default()));
            self.submit(encoder);
            let done = self.completion().await;
            self.fault()?;
            done.map_err(|e| Error::DeviceLost(e.to_string()))?;
            timings.push(Timing {
                kernel: step.kernel.into(),
                label: step.label.clone(),
                seconds: start.elapsed().as_secs_f64(),
            });
        }
        Ok(timings)
    }
}
