//! Pipelines: each is made once, several at a time, and kept on disk where the backend gives them away.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tern_shaders::{Access, AnyKernel, Variant};

use super::{Gpu, lock};
use crate::cache::{self, Kept};
use crate::{AdapterSummary, Error, Result};

#[derive(Clone)]
pub(super) struct Layout {
    pub(super) group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// A kernel and the variant that computes it.
pub(super) type Pair = (&'static AnyKernel, &'static Variant);

/// What was made on a device.
pub(super) struct Pipelines {
    layouts: Mutex<HashMap<&'static str, Layout>>,
    made: Mutex<HashMap<(&'static str, &'static str), wgpu::ComputePipeline>>,
    disk: Option<Disk>,
}

impl Pipelines {
    /// With what the folder has of the adapter.
    pub fn open(device: &wgpu::Device, folder: Option<&Path>, adapter: &AdapterSummary) -> Self {
        let disk = folder.and_then(|folder| Disk::open(device, folder, adapter));
        Pipelines { layouts: Mutex::default(), made: Mutex::default(), disk }
    }
}

/// The driver's pipelines in a file.
struct Disk {
    cache: wgpu::PipelineCache,
    kept: Kept,
    /// Of what the cache had when it was opened or last saved.
    fingerprint: AtomicU64,
    /// Pipelines that the cache got, and of these those that aren't in the file.
    all: AtomicUsize,
    unsaved: AtomicUsize,
}

impl Disk {
    fn open(device: &wgpu::Device, folder: &Path, adapter: &AdapterSummary) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let kept = Kept::new(folder, "pipelines", adapter);
        let data = kept.read();
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("pipelines"),
            data: data.as_deref(),
            fallback: true,
        };
        // SAFETY: what a file of this adapter, driver and version has, whole by its checksum, is what
        // such a cache gave; wgpu looks at its own header and at the driver's key as well.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        // Not of the file: a driver may have refused it, or give away more than it has without any
        // pipeline made.
        let fingerprint = AtomicU64::new(cache::fingerprint(cache.get_data().as_deref()));
        let (all, unsaved) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Some(Disk { cache, kept, fingerprint, all, unsaved })
    }

    /// After so many more pipelines: saves where an eighth of all or more would be lost, so that
    /// programs of many plans don't write all for each of them.
    fn grown(&self, by: usize) {
        let all = self.all.fetch_add(by, Ordering::Relaxed) + by;
        let unsaved = self.unsaved.fetch_add(by, Ordering::Relaxed) + by;
        if 8 * unsaved >= all {
            self.save();
        }
    }

    fn save(&self) {
        if self.unsaved.swap(0, Ordering::Relaxed) == 0 {
            return;
        }
        let Some(data) = self.cache.get_data() else { return };
        let own = cache::fingerprint([data.as_slice()]);
        if self.fingerprint.swap(own, Ordering::Relaxed) != own {
            self.kept.write(&data);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.save();
    }
}

/// A pipeline, and what was wrong with it.
struct Begun<E> {
    of: Pair,
    pipeline: wgpu::ComputePipeline,
    error: E,
}

impl Gpu {
    pub(super) fn layout(&self, kernel: &'static AnyKernel) -> Layout {
        let mut layouts = lock(&self.pipelines.layouts);
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

    /// The pipeline of a variant, which [`Gpu::make_pipelines`] has made.
    pub(super) fn pipeline(&self, (kernel, variant): Pair) -> Option<wgpu::ComputePipeline> {
        lock(&self.pipelines.made).get(&(kernel.name, variant.name)).cloned()
    }

    /// Makes those that aren't there yet, on all cores. All are begun before the first is waited for:
    /// a browser compiles them elsewhere.
    ///
    /// # Errors
    /// The first one that the driver or naga refuses; the others are made.
    pub(super) async fn make_pipelines(&self, mut wanted: Vec<Pair>) -> Result<()> {
        wanted.sort_by_key(|(kernel, variant)| (kernel.name, variant.name));
        wanted.dedup_by_key(|(kernel, variant)| (kernel.name, variant.name));
        wanted.retain(|pair| self.pipeline(*pair).is_none());
        let (mut count, mut refused) = (0, None);
        for begun in on_threads(&wanted, |pair| self.begin_pipeline(*pair)) {
            let (kernel, variant) = begun.of;
            if let Some(error) = begun.error.await {
                self.fault()?;
                let kernel = format!("{} ({})", kernel.name, variant.name);
                refused.get_or_insert(Error::Kernel { kernel, reason: error.to_string() });
                continue;
            }
            self.created.fetch_add(1, Ordering::Relaxed);
            count += 1;
            lock(&self.pipelines.made).insert((kernel.name, variant.name), begun.pipeline);
        }
        if let Some(disk) = self.pipelines.disk.as_ref().filter(|_| count > 0) {
            disk.grown(count);
        }
        refused.map_or(Ok(()), Err)
    }

    fn begin_pipeline(&self, of: Pair) -> Begun<impl Future<Output = Option<wgpu::Error>> + use<>> {
        let (kernel, variant) = of;
        let layout = self.layout(kernel);
        let name = format!("{} ({})", kernel.name, variant.name);
        // Scopes are a thread's own.
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
                self.device
                    .create_shader_module_trusted(source, wgpu::ShaderRuntimeChecks::unchecked())
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
            cache: self.pipelines.disk.as_ref().map(|disk| &disk.cache),
        });
        Begun { of, pipeline, error: scope.pop() }
    }
}

/// What `make` gives of each, in order, on as many threads as there are cores.
#[cfg(not(target_family = "wasm"))]
fn on_threads<T: Sync, U: Send>(all: &[T], make: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = all.get(at) else { return made };
            made.push((at, make(item)));
        }
    };
    let mut made = std::thread::scope(|scope| {
        // Where no thread can be had, this one does it all.
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..cores.min(all.len())).filter_map(start).collect();
        let mut made = work();
        for other in others {
            made.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        made
    });
    made.sort_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, made)| made).collect()
}

/// A browser's objects belong to their thread.
#[cfg(target_family = "wasm")]
fn on_threads<T, U>(all: &[T], make: impl Fn(&T) -> U) -> Vec<U> {
    all.iter().map(make).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::device::Backend;
    use crate::ops::testing::software;

    /// SwiftShader gives no pipelines away, and with each start a header more than the file had.
    #[test]
    fn a_file_is_written_where_there_is_something_new_alone() {
        for (name, device) in software() {
            let Backend::Gpu(gpu) = &*device.0 else { panic!("{name} is no GPU") };
            let (folder, adapter) = (tempfile::tempdir().unwrap(), device.summary());
            let open = || Disk::open(&gpu.device, folder.path(), &adapter);
            let Some(empty) = open() else { continue };
            let kept = Kept::new(folder.path(), "pipelines", &adapter);
            empty.grown(1);
            assert_eq!(kept.read(), None, "{name}");
            let header = empty.cache.get_data().unwrap();
            for content in [&header[..], b"no cache of any driver's"] {
                kept.write(content);
                for _ in 0..2 {
                    open().unwrap().grown(1);
                    assert_eq!(kept.read().as_deref(), Some(content), "{name}");
                }
            }
            // As after a pipeline of a driver that gives it away.
            empty.fingerprint.store(0, Ordering::Relaxed);
            empty.grown(1);
            assert_eq!(kept.read(), Some(header), "{name}");
        }
    }

    #[test]
    fn work_is_done_once_each_in_order_and_at_the_same_time() {
        assert_eq!(on_threads(&[3, 1, 2], |n| 2 * n), [6, 2, 4]);
        assert!(on_threads(&[0; 0], |n| *n).is_empty());
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let all: Vec<usize> = (0..cores).collect();
        // Each waits for all others, which one after another would never end.
        let barrier = Barrier::new(cores);
        let waited = on_threads(&all, |n| {
            barrier.wait();
            *n
        });
        assert_eq!(waited, all);
    }
}
