//! The devices to bench.

use anyhow::Result;
use tern_engine::{Device, DeviceOptions, Kind, Select, adapters};

use crate::Devices;
use crate::table::{Table, bytes};

/// Prints every device there is.
pub fn list() {
    let mut table = Table::new(&[
        "#",
        "name",
        "kind",
        "backend",
        "driver",
        "largest binding",
        "workgroup memory",
        "features",
    ]);
    for a in pollster::block_on(adapters()) {
        let limit = |n: u64| if n == u64::MAX { "–".into() } else { bytes(n) };
        table.row([
            a.index.to_string(),
            a.name,
            format!("{:?}", a.kind),
            a.backend,
            a.driver,
            limit(a.max_binding),
            if a.workgroup_memory == 0 { "–".into() } else { bytes(a.workgroup_memory.into()) },
            a.features.join(" "),
        ]);
    }
    println!("{table}");
}

fn open(select: Select) -> tern_engine::Result<Device> {
    pollster::block_on(Device::open(&DeviceOptions { select, ..Default::default() }))
}

impl Devices {
    /// Opens them.
    pub fn open(&self) -> Result<Vec<Device>> {
        if self.all {
            let all = pollster::block_on(adapters());
            return Ok(all
                .iter()
                .map(|a| open(Select::Index(a.index)))
                .collect::<tern_engine::Result<_>>()?);
        }
        if self.device.is_empty() {
            let mut devices = vec![Device::cpu()];
            match open(Select::Kind(Kind::Software)) {
                Ok(device) => devices.push(device),
                Err(e) => println!("Software Vulkan left out: {e}\n"),
            }
            return Ok(devices);
        }
        let mut devices = Vec::new();
        for text in &self.device {
            devices.push(open(text.parse()?)?);
        }
        Ok(devices)
    }
}
