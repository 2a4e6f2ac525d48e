//! GPUs as the system lists them.

use super::{Gpu, quirks};
use crate::device::{AdapterSummary, DeviceOptions, Kind};
use crate::{Error, Result};

impl From<wgpu::DeviceType> for Kind {
    fn from(kind: wgpu::DeviceType) -> Self {
        match kind {
            wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
            wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
            wgpu::DeviceType::Cpu => Kind::Software,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => Kind::Virtual,
        }
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // Overcommitted memory shows as an out-of-memory error instead of a lost device.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(97);
    wgpu::Instance::new(descriptor)
}

/// The features of an adapter that Tern can use.
fn usable(adapter: &wgpu::Adapter) -> wgpu::Features {
    use wgpu::Features;
    let mut wanted = Features::SHADER_F16 | Features::TIMESTAMP_QUERY | Features::SUBGROUP;
    // The one size that the kernels are written for.
    let fits = |p: &wgpu::CooperativeMatrixProperties| {
        use wgpu::CooperativeScalarType::{F16, F32};
        [p.m_size, p.n_size, p.k_size] == [16; 3] && (p.ab_type, p.cr_type) == (F16, F32)
    };
    if adapter.cooperative_matrix_properties().iter().any(fits) {
        wanted |= Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
    }
    quirks::sound(&adapter.get_info(), adapter.features() & wanted)
}

/// A GPU that can be opened.
pub(crate) struct Adapter(wgpu::Adapter);

/// What the system says of an adapter. Browsers may give it no name.
fn info(adapter: &wgpu::Adapter) -> wgpu::AdapterInfo {
    let mut info = adapter.get_info();
    if info.name.is_empty() {
        info.name = "unnamed GPU".into();
    }
    info
}

/// The GPUs there are, best first.
pub(crate) async fn enumerate() -> Vec<Adapter> {
    let mut adapters = instance().enumerate_adapters(wgpu::Backends::all()).await;
    adapters.retain(|a| {
        let flags = a.get_downlevel_capabilities().flags;
        flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
    });
    adapters.sort_by_key(|a| Kind::from(a.get_info().device_type));
    adapters.into_iter().map(Adapter).collect()
}

impl Adapter {
    /// What is known of it without opening it.
    pub fn summary(&self, index: usize) -> AdapterSummary {
        let adapter = &self.0;
        let info = info(adapter);
        let limits = adapter.limits();
        let (subgroup_min, subgroup_max) = match usable(adapter).contains(wgpu::Features::SUBGROUP)
        {
            true => (info.subgroup_min_size, info.subgroup_max_size),
            false => (0, 0),
        };
        AdapterSummary {
            index,
            name: info.name,
            kind: info.device_type.into(),
            backend: format!("{:?}", info.backend),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            invocations: limits.max_compute_invocations_per_workgroup,
            subgroups: [subgroup_min, subgroup_max],
            features: usable(adapter).iter_names().map(|(name, _)| name.to_string()).collect(),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Error::OpenDevice`] if the driver refuses.
    pub async fn open(&self, index: usize, options: &DeviceOptions) -> Result<Gpu> {
        let adapter = &self.0;
        let info = info(adapter);
        let (mut features, mut limits) = if options.portable {
            (wgpu::Features::empty(), wgpu::Limits::default())
        } else {
            (usable(adapter), adapter.limits())
        };
        if let Some(bytes) = options.max_binding {
            limits.max_storage_buffer_binding_size =
                limits.max_storage_buffer_binding_size.min(bytes);
        }
        if options.cache.is_some() {
            features |= adapter.features() & wgpu::Features::PIPELINE_CACHE;
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("tern"),
                required_features: features,
                required_limits: limits,
                memory_hints: wgpu::MemoryHints::Performance,
                // SAFETY: cooperative matrices are the one experimental feature asked for; a variant
                // that uses them has to pass its self-test on the device first.
                experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
                ..Default::default()
            })
            .await
            .map_err(|e| Error::OpenDevice { adapter: info.name.clone(), reason: e.to_string() })?;
        let submit_seconds = match options.portable {
            true => quirks::SHORT_SUBMIT,
            false => quirks::submit_seconds(&info),
        };
        Ok(Gpu::new(device, queue, info, self.summary(index), options, submit_seconds))
    }
}
