//! The device that a demo runs on.

use anyhow::{Context, Result};
use tern_engine::{Device, DeviceOptions};

/// Opens the device asked for by `--device`, else the one of the environment variable
/// TERN_DEVICE, else the best there is.
pub fn open(asked: Option<&str>) -> Result<Device> {
    let options = match asked {
        Some(text) => DeviceOptions {
            select: text.parse().with_context(|| format!("--device {text}"))?,
            ..DeviceOptions::default()
        },
        None => DeviceOptions::from_env()?,
    };
    Ok(pollster::block_on(Device::open(&options))?)
}
