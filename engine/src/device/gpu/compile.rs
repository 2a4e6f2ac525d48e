//! Choosing variants, and binding calls to their pipelines.

use std::sync::atomic::Ordering;

use tern_shaders::{AnyKernel, Feature, MAX_ITERATIONS, Variant};

use super::{Claim, Gpu, Trust, bytes, lock, quirks};
use crate::device::{Call, Storage};
use crate::{Error, Outcome, Result, tuning};

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
                || self
                    .trust()
                    .outcome(kernel, v)
                    .is_none_or(|outcome| matches!(outcome, Outcome::Passed(_)))
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
                !variant.features.is_empty() && self.trust().outcome(kernel, variant).is_none()
            },
        )
    }

    /// What became of self-tests.
    pub fn trust(&self) -> std::sync::MutexGuard<'_, Trust> {
        lock(&self.trust)
    }

    /// Makes the pipelines of calls at once that would be made one by one otherwise, by self-tests
    /// first. What is wrong with one shows where it is needed.
    pub async fn prepare(&self, calls: &[Call]) {
        let known = |call: &Call| Some((call.kernel, self.variant(call).ok()?));
        let _ = self.make_pipelines(calls.iter().filter_map(known).collect()).await;
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
        let limits = self.device.limits();
        let max_groups = limits.max_compute_workgroups_per_dimension;
        let max_binding = limits.max_storage_buffer_binding_size;
        let variants: Vec<_> =
            calls.iter().map(|call| self.variant(call)).collect::<Result<_>>()?;
        let kernels = calls.iter().map(|call| call.kernel);
        self.make_pipelines(kernels.zip(variants.iter().copied()).collect()).await?;
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
            let Some(pipeline) = self.pipeline((call.kernel, variant)) else {
                unreachable!("a pipeline that was made")
            };
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
                let [needed, available] = [bytes(slot.words), max_binding];
                if needed > available {
                    let what = format!("a binding of {}", call.label);
                    return Err(Error::OutOfMemory { what, needed, available });
                }
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
