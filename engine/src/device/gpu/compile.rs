//! Choosing variants, pipelines, and binding calls to them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tern_shaders::{Access, AnyKernel, Feature, MAX_ITERATIONS, Variant};

use super::{Claim, Gpu, bytes, lock, quirks};
use crate::device::{Call, Storage};
use crate::{Error, Result, tuning};

#[derive(Clone)]
pub(super) struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

pub(super) struct Step {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) group: wgpu::BindGroup,
    pub(super) grid: [u32; 3],
    pub(super) kernel: &'static str,
    pub(super) variant: &'static str,
    pub(super) label: String,
}

/// Calls with their pipelines and bind groups.
pub(crate) struct Program {
    pub(super) steps: Vec<Step>,
    /// The parameter structs, which the bind groups keep alive.
    _parameters: Claim,
}

impl Program {
    /// The variant of each step.
    pub fn variants(&self) -> Vec<&'static str> {
        self.steps.iter().map(|step| step.variant).collect()
    }
}

impl Gpu {
    pub fn pin(&self, kernel: &AnyKernel, variant: &str) -> Result<()> {
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
        if feature == Feature::SubgroupOf8 && self.info.subgroup_min_size < 8 {
            return false;
        }
        self.features.contains(match feature {
            Feature::Subgroup | Feature::SubgroupOf8 => wgpu::Features::SUBGROUP,
            Feature::F16 => wgpu::Features::SHADER_F16,
            Feature::CooperativeMatrix => {
                wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16
            }
        })
    }

    /// Whether the device has what a variant needs, whatever the parameters.
    pub fn supports(&self, variant: &Variant) -> bool {
        variant.features.iter().all(|f| self.has(*f))
    }

    /// Whether the driver is software.
    fn software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Whether a variant computes these parameters right on this device.
    pub fn takes(&self, variant: &Variant, params: &[u8]) -> bool {
        self.supports(variant) && variant.takes(params, quirks::ends_loops(&self.info))
    }

    /// Whether a variant is for this device, which takes no other by itself.
    pub fn offers(&self, variant: &Variant) -> bool {
        (self.software() || !variant.software) && quirks::offers(&self.info, variant.name)
    }

    /// Why no variant computes these parameters.
    fn refusal(&self, kernel: &AnyKernel, params: &[u8]) -> String {
        let fitting = kernel.variants.iter().filter(|v| self.supports(v) && (v.fits)(params));
        match fitting.map(|v| (v.iterations)(params, v)).min() {
            Some(iterations) => format!(
                "{iterations} iterations of loops in one invocation, at most {MAX_ITERATIONS} on {}, \
                 whose driver ends longer ones",
                self.info.name
            ),
            None => format!("no variant for these parameters on {}", self.info.name),
        }
    }

    /// What computes a call: the variant that the call names; else, of those that fit and have
    /// not failed their self-test, the pinned one, or of those for this kind of device the tuned
    /// one, or the first. Barriers are avoided on software devices, where they cost more than they
    /// save.
    pub fn variant(&self, call: &Call) -> Result<&'static Variant> {
        let (kernel, params) = (call.kernel, bytemuck::cast_slice(&call.params));
        let fault = |reason: String| Error::Kernel { kernel: kernel.name.into(), reason };
        let fits = |v: &&Variant| self.takes(v, params);
        if let Some(name) = call.variant {
            let mut named = kernel.variants.iter().filter(fits).filter(|v| v.name == name);
            return named.next().ok_or_else(|| {
                fault(format!("variant {name} doesn't fit the parameters or the device"))
            });
        }
        let trusted = |v: &&Variant| {
            v.features.is_empty()
                || lock(&self.trust).get(&(kernel.name, v.name)).is_none_or(|passed| *passed)
        };
        let all = || kernel.variants.iter().filter(fits).filter(trusted);
        let offered = || all().filter(|v| self.offers(v));
        let software = self.software();
        let pin = lock(&self.pins).get(kernel.name).copied();
        let pinned = pin.and_then(|name| all().find(|v| v.name == name));
        let tuned = || {
            let class = tuning::class(kernel, &call.params)?;
            lock(&self.tuned).get(kernel.name, &class)
        };
        pinned
            .or_else(|| tuned().and_then(|name| offered().find(|v| v.name == name)))
            .or_else(|| offered().find(|v| !(software && v.workgroup_memory)))
            .or_else(|| offered().next())
            .ok_or_else(|| fault(self.refusal(kernel, params)))
    }

    /// A variant that one of the calls would use and that has to pass its self-test before.
    pub fn untested(&self, calls: &[Call]) -> Option<(&'static AnyKernel, &'static Variant)> {
        let own_choice = calls.iter().filter(|call| call.variant.is_none());
        own_choice.filter_map(|call| Some((call.kernel, self.variant(call).ok()?))).find(
            |(kernel, variant)| {
                !variant.features.is_empty()
                    && !lock(&self.trust).contains_key(&(kernel.name, variant.name))
            },
        )
    }

    /// Remembers whether a variant passed its self-test.
    pub fn trust(&self, kernel: &AnyKernel, variant: &Variant, passed: bool) {
        lock(&self.trust).insert((kernel.name, variant.name), passed);
    }

    fn layout(&self, kernel: &'static AnyKernel) -> Layout {
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

    /// What computes each of these calls, whose pipelines are made if they aren't there yet. All
    /// are begun before the first is waited for: a browser compiles them elsewhere.
    async fn make_pipelines(&self, calls: &[Call]) -> Result<Vec<&'static Variant>> {
        let (mut variants, mut begun) = (Vec::with_capacity(calls.len()), BTreeMap::new());
        for call in calls {
            let (kernel, variant) = (call.kernel, self.variant(call)?);
            variants.push(variant);
            let key = (kernel.name, variant.name);
            if !begun.contains_key(&key) && !lock(&self.pipelines).contains_key(&key) {
                begun.insert(key, self.begin_pipeline(kernel, variant));
            }
        }
        for (key, (pipeline, error)) in begun {
            if let Some(error) = error.await {
                self.fault()?;
                let kernel = format!("{} ({})", key.0, key.1);
                return Err(Error::Kernel { kernel, reason: error.to_string() });
            }
            self.created.fetch_add(1, Ordering::Relaxed);
            lock(&self.pipelines).insert(key, pipeline);
        }
        Ok(variants)
    }

    /// A pipeline, and what was wrong with it.
    fn begin_pipeline(
        &self,
        kernel: &'static AnyKernel,
        variant: &'static Variant,
    ) -> (wgpu::ComputePipeline, impl Future<Output = Option<wgpu::Error>> + use<>) {
        let layout = self.layout(kernel);
        let name = format!("{} ({})", kernel.name, variant.name);
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
            cache: None,
        });
        (pipeline, scope.pop())
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
        let claim = self.claim(words.len());
        self.queue.write_buffer(&uniforms, 0, bytemuck::cast_slice(&words));
        let max_groups = self.device.limits().max_compute_workgroups_per_dimension;
        let variants = self.make_pipelines(&calls).await?;
        let mut steps = Vec::with_capacity(calls.len());
        for (at, (call, variant)) in calls.into_iter().zip(variants).enumerate() {
            let params = bytemuck::cast_slice(&call.params);
            let [x, y] = (variant.grid)(params, variant);
            let grid = [x, y, call.replicas as u32];
            if grid.iter().any(|n| *n > max_groups) {
                return Err(Error::Kernel {
                    kernel: call.label,
                    reason: format!("grid {grid:?} exceeds {max_groups} workgroups a dimension"),
                });
            }
            let pipeline = lock(&self.pipelines)[&(call.kernel.name, variant.name)].clone();
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
                let Storage::Gpu(memory) = &slot.buffer.storage else {
                    unreachable!("buffer of another device")
                };
                entries.push(wgpu::BindGroupEntry {
                    binding: i as u32 + 1,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &memory.buffer,
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
            let (kernel, label) = (call.kernel.name, call.label);
            steps.push(Step { pipeline, group, grid, kernel, variant: variant.name, label });
        }
        self.fault()?;
        Ok(Program { steps, _parameters: claim })
    }
}
