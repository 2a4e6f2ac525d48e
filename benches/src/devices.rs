//! The devices to bench.

use anyhow::Result;
use tern_engine::{Device, DeviceOptions, Select, adapters};

use crate::Devices;
use crate::device::adapter;
use crate::table::{Table, bytes};

/// Prints every device there is.
pub fn list() {
    let heading = [
        "#",
        "name",
        "kind",
        "backend",
        "driver",
        "largest binding",
        "workgroup memory",
        "features",
    ];
    let mut table = Table::new(&heading);
    for summary in pollster::block_on(adapters()) {
        let index = summary.index.to_string();
        let a = adapter(summary);
        let memory = a.workgroup_memory;
        table.row([
            index,
            a.name,
            a.kind,
            a.backend,
            a.driver,
            a.max_binding.map_or("–".into(), bytes),
            if memory == 0 { "–".into() } else { bytes(memory.into()) },
            a.features.join(" "),
        ]);
    }
    println!("{table}");
}

impl Devices {
    /// Opens them.
    pub fn open(&self) -> Result<Vec<Device>> {
        // Choices of variants and pins as the environment has them.
        let options = DeviceOptions::from_env()?;
        let selected: Vec<Select> = if self.all {
            let all = pollster::block_on(adapters());
            all.iter().map(|a| Select::Index(a.index)).collect()
        } else if self.device.is_empty() {
            vec![options.select.clone()]
        } else {
            self.device.iter().map(|text| text.parse()).collect::<tern_engine::Result<_>>()?
        };
        let open = |select| {
            let mut options = options.clone();
            options.select = select;
            pollster::block_on(Device::open(&options))
        };
        Ok(selected.into_iter().map(open).collect::<tern_engine::Result<_>>()?)
    }
}
