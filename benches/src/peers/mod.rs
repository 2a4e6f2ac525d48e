//! Other frameworks on the same machine, in the same run, so that a ratio is honest.

mod torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use tern_engine::Isa;

use crate::processor::threads;
use crate::progress::Progress;
use crate::report::Peer;
pub use torch::Torch;

/// Whether and how peers are timed.
#[derive(Args)]
pub struct Peers {
    /// Time the same steps, products and kernels in PyTorch (if Python has torch) and, where
    /// `benches/peers/burn` and `benches/peers/meganeura` are built, in these.
    #[arg(long)]
    peers: bool,
    /// Python with torch.
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
}

/// A line that a peer of its own binary prints.
#[derive(Deserialize)]
struct Found {
    /// Framework, version and device.
    peer: String,
    /// Whether it ran on a GPU interface in software.
    software: bool,
    /// Whether it ran on a GPU.
    #[serde(default)]
    gpu: bool,
    /// Seconds by workload: `char-lstm`, `matmul-512`, …
    seconds: BTreeMap<String, f64>,
}

impl Found {
    /// The kinds of our devices that are like the peer's.
    fn kinds(&self) -> &'static [&'static str] {
        match (self.gpu, self.software) {
            (true, _) => torch::GPUS,
            (false, true) => &["software"],
            (false, false) => &["cpu"],
        }
    }
}

impl From<Found> for Peer {
    fn from(found: Found) -> Self {
        let kinds = found.kinds().iter().map(|k| k.to_string()).collect();
        Peer { peer: found.peer, kinds, seconds: found.seconds }
    }
}

/// The command of a peer in Python, which computes with the vectors that we do: ATen, oneDNN and
/// MKL each read a variable of their own.
pub fn python(python: &Path) -> Command {
    let mut command = Command::new(python);
    if let Some(names) = vectors(Isa::current()) {
        let variables = ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"];
        command.envs(variables.into_iter().zip(names));
    }
    command
}

/// What ATen, oneDNN and MKL call a set below the widest.
fn vectors(isa: Isa) -> Option<[&'static str; 3]> {
    match isa {
        Isa::Avx2 => Some(["avx2", "AVX2", "AVX2"]),
        Isa::Base => Some(["default", "SSE41", "SSE4_2"]),
        _ => None,
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// Peers that time all they have at once, each built in the folder of its name.
const BUILT: [&str; 2] = ["burn", "meganeura"];

/// Where a peer's binary is, if it is built.
fn built(peer: &str) -> Option<PathBuf> {
    let name = format!("tern-peer-{peer}{}", std::env::consts::EXE_SUFFIX);
    Some(folder().join(peer).join("target/release").join(name)).filter(|binary| binary.exists())
}

impl Peers {
    /// Whether peers were asked for.
    pub fn asked(&self) -> bool {
        self.peers
    }

    /// Starts PyTorch, which is asked for one workload after the other, if peers were asked for
    /// and Python has it.
    ///
    /// # Errors
    /// If no peer is there at all, or PyTorch doesn't start.
    pub fn torch(&self, progress: &Progress) -> Result<Option<Torch>> {
        if !self.peers {
            return Ok(None);
        }
        let torch = python(&self.python).args(["-c", "import torch"]).output();
        if torch.is_ok_and(|o| o.status.success()) {
            progress.part("PyTorch starts");
            return Torch::start(&self.python, &folder().join("torch_steps.py")).map(Some);
        }
        println!("PyTorch left out: {} has no torch", self.python.display());
        if !BUILT.iter().any(|peer| built(peer).is_some()) {
            bail!("no peer to compare with");
        }
        Ok(None)
    }

    /// Runs the peers that time all they have at once, or what names contain, if they were asked for
    /// and are there.
    ///
    /// # Errors
    /// If one fails.
    pub fn others(&self, filter: Option<&str>, progress: &Progress) -> Result<Vec<Peer>> {
        if !self.peers {
            return Ok(Vec::new());
        }
        let mut peers = Vec::new();
        for peer in BUILT {
            let Some(binary) = built(peer) else {
                println!("{peer} left out: build benches/peers/{peer} first (see its README)");
                continue;
            };
            progress.part(peer);
            let mut command = Command::new(binary);
            // What a filter leaves out is little of what they have.
            command.args(filter.filter(|filter| !filter.starts_with('!')));
            let found = output(command.env("RAYON_NUM_THREADS", threads().to_string()))?;
            peers.extend(found.into_iter().map(Peer::from));
        }
        Ok(peers)
    }
}

/// What a peer prints: one JSON object a line.
fn output(command: &mut Command) -> Result<Vec<Found>> {
    let name = format!("{command:?}");
    // What it says of its progress goes to the terminal.
    let output = command.stderr(Stdio::inherit()).output().with_context(|| name.clone())?;
    if !output.status.success() {
        bail!("{name}: {}", output.status);
    }
    parse(&String::from_utf8(output.stdout)?).with_context(|| name)
}

fn parse(text: &str) -> Result<Vec<Found>> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_computes_with_the_vectors_that_were_pinned() {
        let set = |isa| vectors(isa).map(|names| names[0]);
        assert_eq!(set(Isa::Avx2), Some("avx2"));
        assert_eq!(set(Isa::Base), Some("default"));
        assert_eq!(set(Isa::Avx512), None);
        let command = python(Path::new("python3"));
        let given: Vec<_> =
            command.get_envs().filter_map(|(name, value)| name.to_str().zip(value)).collect();
        let wanted =
            vectors(Isa::current()).map(|names| ("ATEN_CPU_CAPABILITY", names[0].as_ref()));
        assert_eq!(given.into_iter().find(|(name, _)| name.starts_with("ATEN")), wanted);
    }

    #[test]
    fn peers_are_compared_with_devices_of_their_kind() {
        let text = "warming up\n\
            {\"peer\": \"a\", \"software\": false, \"seconds\": {\"mlp\": 0.5}}\n\
            {\"peer\": \"b\", \"software\": true, \"seconds\": {}}\n\
            {\"peer\": \"c\", \"software\": false, \"gpu\": true, \"seconds\": {}}\n";
        let peers: Vec<Peer> = parse(text).unwrap().into_iter().map(Peer::from).collect();
        let kinds: Vec<&str> = peers.iter().map(|p| p.kinds[0].as_str()).collect();
        assert_eq!(kinds, ["cpu", "software", "discrete"]);
        assert_eq!(peers[0].seconds["mlp"], 0.5);
        assert!(parse("{\"peer\": 1}").is_err());
    }
}
