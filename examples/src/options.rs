//! Options that all demos take.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tern_engine::{Device, DeviceOptions};

use crate::report::Report;

/// Where a demo runs, and where its report goes.
#[derive(Args, Clone, Debug, Default)]
pub struct RunOptions {
    /// `cpu`, `gpu`, `discrete`, `integrated`, `software`, a number or part of a name; goes
    /// before the environment variable TERN_DEVICE
    #[arg(long)]
    pub device: Option<String>,
    /// Folder for the report, new or with an earlier one of the same demo; the next free
    /// `runs/<demo>-<number>` if not given
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl RunOptions {
    /// Opens the device asked for by `--device`, else the one of the environment variable
    /// TERN_DEVICE, else the best there is.
    pub fn open(&self) -> Result<Device> {
        let mut options = DeviceOptions::from_env()?;
        if let Some(text) = &self.device {
            options.select = text.parse().with_context(|| format!("--device {text}"))?;
        }
        Ok(pollster::block_on(Device::open(&options))?)
    }

    /// The report of a demo, in the folder asked for, or the next free one.
    pub fn report(&self, demo: &str) -> Result<Report> {
        match &self.out {
            Some(folder) => Report::of(demo, folder),
            None => Report::next(demo),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let unknown = RunOptions { device: Some("no such device".into()), out: None };
        let error = format!("{:#}", unknown.open().unwrap_err());
        assert!(error.contains("no such device"), "{error}");
    }
}
