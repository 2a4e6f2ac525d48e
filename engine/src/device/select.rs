//! Finding devices and choosing one.

use std::sync::Arc;

use super::{Backend, Device, Gpu};
use crate::tuning::{Table, Tuning};
use crate::{Error, Result};

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A GPU inside a virtual machine, or one that doesn't say.
    Virtual,
    /// The CPU through Tern's own functions.
    Cpu,
    /// A GPU interface in software: for tests, ten times slower than [`Kind::Cpu`].
    Software,
}

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

/// Which device to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// Discrete before integrated before virtual before the CPU; never software.
    #[default]
    Best,
    /// The best of a kind.
    Kind(Kind),
    /// By place in [`adapters`]' list.
    Index(usize),
    /// By a part of the adapter's name, case ignored.
    Name(String),
}

impl std::str::FromStr for Select {
    type Err = Error;

    /// `cpu`, `gpu`, `discrete`, `integrated`, `software`, a number, or a part of a name.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.trim().to_lowercase().as_str() {
            "" => return Err(Error::value("TERN_DEVICE", "empty", "a kind, index or name")),
            "best" | "gpu" => Select::Best,
            "cpu" => Select::Kind(Kind::Cpu),
            "discrete" => Select::Kind(Kind::Discrete),
            "integrated" => Select::Kind(Kind::Integrated),
            "software" => Select::Kind(Kind::Software),
            other => match other.parse() {
                Ok(index) => Select::Index(index),
                Err(_) => Select::Name(other.into()),
            },
        })
    }
}

/// How to open a device. The default measures and reads nothing that could change numbers from
/// run to run.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Which one.
    pub select: Select,
    /// WebGPU's default limits, no optional feature, submits of 10 ms: what a phone or a
    /// browser gives.
    pub portable: bool,
    /// Bounds checks in shaders, for tests.
    pub checked: bool,
    /// Whether measured choices of variants are used.
    pub tuning: Tuning,
    /// Kernels and the variants that they are pinned to; see [`Device::pin`].
    pub pins: Vec<(String, String)>,
}

impl DeviceOptions {
    /// What the environment asks for: the selection in `TERN_DEVICE`, the [`Tuning`] in
    /// `TERN_TUNE` (`off`, `table`, `measure`; `table` if it isn't set), and in `TERN_PIN` pins
    /// as `kernel=variant,kernel=variant`.
    ///
    /// # Errors
    /// [`Error::Value`] for a text that none of them takes.
    pub fn from_env() -> Result<Self> {
        let text = |name: &str| std::env::var(name).ok();
        let select = text("TERN_DEVICE").map_or(Ok(Select::Best), |text| text.parse())?;
        let tuning = text("TERN_TUNE").map_or(Ok(Tuning::Table), |text| text.parse())?;
        let mut pins = Vec::new();
        for pin in text("TERN_PIN").iter().flat_map(|t| t.split(',')).filter(|p| !p.is_empty()) {
            let Some((kernel, variant)) = pin.split_once('=') else {
                return Err(Error::value("TERN_PIN", pin, "kernel=variant"));
            };
            pins.push((kernel.trim().into(), variant.trim().into()));
        }
        Ok(DeviceOptions { select, tuning, pins, ..Default::default() })
    }
}

/// A device there is.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// Place in the list, for [`Select::Index`].
    pub index: usize,
    /// Name as the driver gives it.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// `Vulkan`, `Metal`, `Dx12`, … or `Tern` for the CPU.
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Largest storage binding in bytes.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Workgroup memory in bytes.
    pub workgroup_memory: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Smallest and largest subgroup; zeros where it has none.
    pub subgroups: [u32; 2],
    /// Optional features that Tern can use, by wgpu's names.
    pub features: Vec<String>,
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // Overcommitted memory shows as an out-of-memory error instead of a lost device.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(97);
    wgpu::Instance::new(descriptor)
}

/// PCI numbers of Qualcomm, Arm and Imagination: their drivers compute wrong sums with subgroups
/// and are kept off the fast paths.
const UNTRUSTED: [u32; 3] = [0x5143, 0x13b5, 0x1010];

/// The features of an adapter that Tern can use.
fn usable(adapter: &wgpu::Adapter) -> wgpu::Features {
    use wgpu::Features;
    let mut wanted = Features::SHADER_F16 | Features::TIMESTAMP_QUERY;
    if !UNTRUSTED.contains(&adapter.get_info().vendor) {
        wanted |= Features::SUBGROUP;
        // The one size that the kernels are written for.
        let fits = |p: &wgpu::CooperativeMatrixProperties| {
            use wgpu::CooperativeScalarType::{F16, F32};
            [p.m_size, p.n_size, p.k_size] == [16; 3] && (p.ab_type, p.cr_type) == (F16, F32)
        };
        if adapter.cooperative_matrix_properties().iter().any(fits) {
            wanted |= Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
    }
    adapter.features() & wanted
}

async fn enumerate() -> Vec<wgpu::Adapter> {
    let mut adapters = instance().enumerate_adapters(wgpu::Backends::all()).await;
    adapters.retain(|a| {
        let flags = a.get_downlevel_capabilities().flags;
        flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
    });
    adapters.sort_by_key(|a| Kind::from(a.get_info().device_type));
    adapters
}

fn summary(index: usize, adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let (subgroup_min, subgroup_max) = match usable(adapter).contains(wgpu::Features::SUBGROUP) {
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

/// Every device there is, best first; the CPU is always among them.
pub async fn adapters() -> Vec<AdapterSummary> {
    list(&enumerate().await)
}

fn list(adapters: &[wgpu::Adapter]) -> Vec<AdapterSummary> {
    let mut all: Vec<_> = adapters.iter().map(|a| summary(0, a)).collect();
    let at = all.iter().position(|a| a.kind > Kind::Cpu).unwrap_or(all.len());
    all.insert(at, cpu());
    all.iter_mut().enumerate().for_each(|(i, a)| a.index = i);
    all
}

/// The CPU.
pub(super) fn cpu() -> AdapterSummary {
    AdapterSummary {
        index: 0,
        name: "Cpu".into(),
        kind: Kind::Cpu,
        backend: "Tern".into(),
        driver: format!("{} threads", rayon::current_num_threads()),
        max_binding: u64::MAX,
        max_buffer: u64::MAX,
        workgroup_memory: 0,
        invocations: 0,
        subgroups: [0; 2],
        features: Vec::new(),
    }
}

pub(super) async fn open(options: &DeviceOptions) -> Result<Device> {
    // The CPU needs no driver to be asked.
    if options.select == Select::Kind(Kind::Cpu) {
        return Ok(Device::cpu());
    }
    let adapters = enumerate().await;
    let all = list(&adapters);
    let chosen = match &options.select {
        Select::Best => all.iter().find(|a| a.kind <= Kind::Cpu),
        Select::Kind(kind) => all.iter().find(|a| a.kind == *kind),
        Select::Index(index) => all.get(*index),
        Select::Name(name) => {
            let name = name.to_lowercase();
            all.iter().find(|a| a.name.to_lowercase().contains(&name))
        }
    };
    let Some(chosen) = chosen else {
        let found: Vec<_> = all.iter().map(|a| format!("{} {}", a.index, a.name)).collect();
        return Err(Error::NoDevice {
            wanted: format!("{:?}", options.select),
            found: found.join(", "),
        });
    };
    if chosen.kind == Kind::Cpu {
        return Ok(Device::cpu());
    }
    // The list has the CPU in between; adapters after it are one place further.
    let cpu = all.iter().position(|a| a.kind == Kind::Cpu).unwrap_or(all.len());
    let adapter = &adapters[chosen.index - usize::from(chosen.index > cpu)];
    let device = open_adapter(adapter, chosen.index, options).await?;
    for (kernel, variant) in &options.pins {
        let Some(kernel) = tern_shaders::kernels().find(|k| k.name == kernel) else {
            return Err(Error::value("kernel to pin", kernel, "one of the kernels' names"));
        };
        device.pin(kernel, variant)?;
    }
    Ok(device)
}

async fn open_adapter(
    adapter: &wgpu::Adapter,
    index: usize,
    options: &DeviceOptions,
) -> Result<Device> {
    let info = adapter.get_info();
    let (features, limits) = if options.portable {
        (wgpu::Features::empty(), wgpu::Limits::default())
    } else {
        (usable(adapter), adapter.limits())
    };
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
    // Software has no watchdog; browsers and phones have a strict one.
    let submit_seconds = match Kind::from(info.device_type) {
        _ if options.portable => 0.010,
        Kind::Software => 10.0,
        _ => 0.050,
    };
    let summary = summary(index, adapter);
    let tuned = Table::open(options.tuning, &summary);
    let gpu = Gpu::new(device, queue, info, summary, tuned, options.checked, submit_seconds);
    Ok(Device(Arc::new(Backend::Gpu(Box::new(gpu)))))
}
