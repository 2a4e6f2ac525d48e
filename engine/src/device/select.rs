//! Finding devices and choosing one.

use std::path::PathBuf;
use std::sync::Arc;

use super::gpu::{self, Adapter};
use super::{Backend, Device};
use crate::tuning::Tuning;
use crate::{Error, Result, cache};

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
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

/// Which device to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct DeviceOptions {
    /// Which one.
    pub select: Select,
    /// WebGPU's default limits, no optional feature, submits of 10 ms: what a phone or a
    /// browser gives.
    pub portable: bool,
    /// Bounds checks in shaders, for tests.
    pub checked: bool,
    /// Bytes of a storage binding at most, where that is less than the device allows: how a model runs on a
    /// smaller one.
    pub max_binding: Option<u64>,
    /// Whether measured choices of variants are used.
    pub tuning: Tuning,
    /// Kernels and the variants that they are pinned to; see [`Device::pin`].
    pub pins: Vec<(String, String)>,
    /// Folder where what is learned of the device is kept for the next start: which variants passed
    /// their self-tests, and on Vulkan the driver's pipelines. Nothing is kept without one, but for
    /// measured choices ([`Tuning`]), which then go to the user's.
    pub cache: Option<PathBuf>,
}

impl DeviceOptions {
    /// For a device, otherwise by default.
    pub fn new(select: Select) -> Self {
        DeviceOptions { select, ..Default::default() }
    }

    /// With WebGPU's default limits and no optional feature, or with all there is.
    pub fn portable(mut self, portable: bool) -> Self {
        self.portable = portable;
        self
    }

    /// With bounds checks in shaders, or without.
    pub fn checked(mut self, checked: bool) -> Self {
        self.checked = checked;
        self
    }

    /// With storage bindings of so many bytes at most, or of as many as the device allows.
    pub fn max_binding(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_binding = bytes.into();
        self
    }

    /// With measured choices of variants.
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// With what is learned of the device kept in a folder.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// With a kernel pinned to a variant.
    pub fn pin(mut self, kernel: &str, variant: &str) -> Self {
        self.pins.push((kernel.into(), variant.into()));
        self
    }

    /// What the environment asks for: the selection in `TERN_DEVICE`, the [`Tuning`] in
    /// `TERN_TUNE` (`off`, `table`, `measure`; `table` if it isn't set), in `TERN_PIN` pins as
    /// `kernel=variant,kernel=variant`, and in `TERN_CACHE` a folder for what is kept; the user's
    /// folder for caches if it isn't set.
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
        Ok(DeviceOptions { select, tuning, pins, cache: cache::folder(), ..Default::default() })
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

/// Every device there is, best first; the CPU is always among them.
pub async fn adapters() -> Vec<AdapterSummary> {
    list(&gpu::enumerate().await)
}

fn list(adapters: &[Adapter]) -> Vec<AdapterSummary> {
    let mut all: Vec<_> = adapters.iter().map(|a| a.summary(0)).collect();
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
        driver: super::host::threads(rayon::current_num_threads()),
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
    let adapters = gpu::enumerate().await;
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
        let mut found = found.join(", ");
        if cfg!(not(feature = "gpu")) {
            found.push_str(" (the program was built without the feature `gpu`)");
        }
        return Err(Error::NoDevice { wanted: format!("{:?}", options.select), found });
    };
    if chosen.kind == Kind::Cpu {
        return Ok(Device::cpu());
    }
    // The list has the CPU in between; adapters after it are one place further.
    let cpu = all.iter().position(|a| a.kind == Kind::Cpu).unwrap_or(all.len());
    let adapter = &adapters[chosen.index - usize::from(chosen.index > cpu)];
    let gpu = adapter.open(chosen.index, options).await?;
    let device = Device(Arc::new(Backend::Gpu(Box::new(gpu))));
    for (kernel, variant) in &options.pins {
        let Some(kernel) = tern_shaders::kernels().find(|k| k.name == kernel) else {
            return Err(Error::value("kernel to pin", kernel, "one of the kernels' names"));
        };
        device.pin(kernel, variant)?;
    }
    Ok(device)
}
