//! Other frameworks on the same machine, in the same run, so that a ratio is honest.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tern_engine::{Device, Kind};

use crate::rows;
use crate::table::{Table, digits, seconds};

/// Whether and how peers are timed.
#[derive(Args)]
pub struct Peers {
    /// Time the same steps in PyTorch (if Python has torch) and, where
    /// `benches/peers/burn` is built, in burn on the software adapter.
    #[arg(long)]
    peers: bool,
    /// Python with torch.
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
}

/// What a peer measured.
#[derive(Deserialize)]
pub struct Found {
    /// Framework, version and device.
    peer: String,
    /// Whether it ran on a GPU interface, in software: to be compared with the same.
    software: bool,
    /// Seconds by workload: `char-lstm`, `matmul-512`, …
    seconds: std::collections::BTreeMap<String, f64>,
}

/// A step of ours.
pub struct Ours<'a> {
    /// Workload.
    pub name: &'a str,
    /// Device.
    pub device: &'a str,
    /// Seconds a step.
    pub seconds: f64,
}

/// A peer's time beside ours.
#[derive(Serialize)]
pub struct Ratio {
    workload: String,
    device: String,
    seconds: f64,
    peer: String,
    peer_seconds: f64,
    /// How many times as fast as the peer.
    times: f64,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

impl Peers {
    /// Runs the peers that are there; `None` if none was asked for.
    ///
    /// # Errors
    /// If none is there, or one fails.
    pub fn run(&self) -> Result<Option<Vec<Found>>> {
        if !self.peers {
            return Ok(None);
        }
        let mut found = Vec::new();
        let torch = Command::new(&self.python).args(["-c", "import torch"]).output();
        if torch.is_ok_and(|o| o.status.success()) {
            let script = folder().join("torch_steps.py");
            found.extend(output(Command::new(&self.python).arg(script))?);
        } else {
            println!("PyTorch left out: {} has no torch", self.python.display());
        }
        let burn = folder().join("burn/target/release/tern-peer-burn");
        if burn.exists() {
            found.extend(output(&mut Command::new(burn))?);
        } else {
            println!("burn left out: build benches/peers/burn first (see its README)");
        }
        if found.is_empty() {
            bail!("no peer to compare with");
        }
        Ok(Some(found))
    }
}

/// What a peer prints: one JSON object a line.
fn output(command: &mut Command) -> Result<Vec<Found>> {
    let name = format!("{command:?}");
    let output = command.output().with_context(|| name.clone())?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("{name}: {line}")))
        .collect()
}

/// Times our products as the peers did theirs, and prints all ratios.
///
/// # Errors
/// If a product fails.
pub fn compare(found: &[Found], steps: &[Ours<'_>], devices: &[Device]) -> Result<Vec<Ratio>> {
    let mut ratios = Vec::new();
    let mut add = |name: &str, device: &Device, ours: f64| {
        let software = device.profile().kind == Kind::Software;
        for peer in found.iter().filter(|f| f.software == software) {
            if let Some(theirs) = peer.seconds.get(name) {
                ratios.push(Ratio {
                    workload: name.into(),
                    device: device.name(),
                    seconds: ours,
                    peer: peer.peer.clone(),
                    peer_seconds: *theirs,
                    times: theirs / ours,
                });
            }
        }
    };
    for device in devices {
        for step in steps.iter().filter(|s| s.device == device.name()) {
            add(step.name, device, step.seconds);
        }
        for n in [512, 1024] {
            let case = rows::square(n);
            let time = case.time(device, Duration::from_secs(2))?;
            add(&format!("matmul-{n}"), device, time.median);
        }
    }
    let mut table =
        Table::new(&["workload", "device", "time", "peer", "its time", "times as fast"]);
    for r in &ratios {
        let short = |text: &str| text.split(" (").next().unwrap_or(text).to_string();
        table.row([
            r.workload.clone(),
            short(&r.device),
            seconds(r.seconds),
            r.peer.clone(),
            seconds(r.peer_seconds),
            digits(r.times),
        ]);
    }
    println!("{table}");
    Ok(ratios)
}
