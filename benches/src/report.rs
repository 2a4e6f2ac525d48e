//! Reports that people send each other: what was measured where, as JSON. `benches/README.md`
//! describes the schema; [`SCHEMA`] is its version.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Version of the schema: raised when a field's meaning changes or one goes. A reader leaves out
/// fields that it doesn't know.
pub const SCHEMA: u32 = 2;

/// A run of the suite on one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// Name and version of the writer.
    pub tool: String,
    /// Commit of the sources, `-dirty` behind it if they were changed.
    pub commit: String,
    /// Seconds since 1970 in UTC when the run began.
    pub time: u64,
    /// Whether it was a quick run: smaller sizes and fewer repetitions.
    pub quick: bool,
    /// The machine.
    pub host: Host,
    /// What was measured on each of its devices.
    pub devices: Vec<Device>,
    /// What was measured of other frameworks in the same run.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// A machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Operating system.
    pub os: String,
    /// Instruction set.
    pub arch: String,
    /// Processor, as it names itself.
    pub cpu: String,
    /// Logical cores that the process may use.
    pub cores: usize,
}

/// A device with all that was measured on it. A part that was not asked for is empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Adapter.
    pub adapter: Adapter,
    /// What the `Cpu` device computes with; `None` on other devices and in old reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<Vectors>,
    /// What it can do at most.
    pub roofline: Option<Roofline>,
    /// Whether the variants that need a feature of the hardware compute right on it.
    #[serde(default)]
    pub self_tests: Vec<SelfTest>,
    /// Choices of variants that were in force.
    #[serde(default)]
    pub choices: Vec<Choice>,
    /// All cases of each kernel, checked.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Kernels timed.
    #[serde(default)]
    pub kernels: Vec<Row>,
    /// Training steps timed.
    #[serde(default)]
    pub training: Vec<Training>,
    /// Several models trained side by side.
    #[serde(default)]
    pub replicas: Vec<Replicas>,
    /// Workloads that exist for their ratio to a peer.
    #[serde(default)]
    pub pairs: Vec<Pair>,
}

/// What the `Cpu` device computes with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vectors {
    /// Instruction set: `avx512`, `avx2`, `neon` or `base`.
    pub isa: String,
    /// Threads.
    pub threads: usize,
}

/// An adapter with the limits that matter to kernels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// Name as the driver gives it.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `software`.
    pub kind: String,
    /// `Vulkan`, `Metal`, `Dx12`, or `Tern` for the CPU.
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Largest storage binding in bytes; `None`: no limit.
    pub max_binding: Option<u64>,
    /// Largest buffer in bytes; `None`: no limit.
    pub max_buffer: Option<u64>,
    /// Workgroup memory in bytes.
    pub workgroup_memory: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Smallest and largest subgroup; zeros where it has none.
    pub subgroups: [u32; 2],
    /// Optional features that kernels can use.
    pub features: Vec<String>,
}

/// The roofline: what a device can do at most, measured. Rates in units a second, costs in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Roofline {
    /// Bytes that a copy of large buffers reads and writes.
    pub bandwidth: Option<f64>,
    /// Operations of multiply-adds of 32-bit floats.
    pub single: Option<f64>,
    /// Operations of multiply-adds of 16-bit floats; `None`: not run.
    pub half: Option<f64>,
    /// A dispatch that computes next to nothing, among others of a submit.
    pub dispatch: f64,
    /// A submit of one dispatch, until the host knows that it is done.
    pub submit: f64,
    /// Reading four bytes back.
    pub read_back: f64,
    /// What a probe computed wrong, which then has no rate.
    #[serde(default)]
    pub faults: Vec<String>,
}

/// A variant that needs features of the hardware.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SelfTest {
    /// Kernel.
    pub kernel: String,
    /// Variant.
    pub variant: String,
    /// The features.
    pub features: String,
    /// `passed`, `failed` or `not run`.
    pub outcome: String,
    /// What was wrong, or why it was not run.
    #[serde(default)]
    pub reason: String,
}

/// A choice among a kernel's variants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Choice {
    /// Kernel.
    pub kernel: String,
    /// Class of sizes.
    pub class: String,
    /// Variant.
    pub variant: String,
    /// `shipped`, `cache` or `measured`.
    pub source: String,
    /// Seconds of the variant chosen and of the one that would be used untuned.
    pub seconds: Option<[f64; 2]>,
}

/// All cases of a kernel against the `f64` reference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// Kernel.
    pub kernel: String,
    /// Cases that the device computes.
    pub cases: usize,
    /// Largest error, relative to the largest magnitude of a result (at least 1).
    pub error: f64,
    /// Largest fraction of words that differ.
    pub words_differing: f64,
    /// What was wrong.
    #[serde(default)]
    pub faults: Vec<String>,
}

/// Times of repeated runs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Median.
    pub median: f64,
    /// Fastest.
    pub least: f64,
    /// Slowest.
    pub most: f64,
    /// First and third quartile.
    pub quartiles: [f64; 2],
    /// Runs.
    pub runs: usize,
}

/// A kernel at one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Kernel.
    pub kernel: String,
    /// Sizes.
    pub sizes: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The result is right, and the time is this.
    Timed(Timed),
    /// The result is wrong: no time.
    Failed {
        /// What was wrong.
        reason: String,
    },
    /// Nothing to run on this device.
    NotRun {
        /// Why.
        reason: String,
    },
}

/// A row that was timed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timed {
    /// Variant that computed it; `None` on the CPU.
    pub variant: Option<String>,
    /// Largest error against the `f64` reference, relative to the largest magnitude (at least 1).
    pub error: f64,
    /// Seconds a call.
    pub times: Times,
    /// Seconds of a call alone, from the submit until the host knows that it is done, as the
    /// peers are timed.
    pub alone: f64,
    /// `timestamps` of the device or `wall` clock of the host.
    pub clock: String,
    /// Work a second.
    pub rate: f64,
    /// `GFLOP/s` or `GB/s`.
    pub unit: String,
    /// Share of the roofline: of what the device can do at most with these operations and bytes.
    pub share: Option<f64>,
}

/// A training step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Training {
    /// Name: `char-lstm`, `word-lm`, `mlp`, `cnn`.
    pub workload: String,
    /// Sizes.
    pub sizes: String,
    /// Parameters.
    pub parameters: usize,
    /// Seconds a step where the loss is read in every step, as the peers do.
    pub step: Times,
    /// Seconds a step where losses are read once for several steps.
    pub streamed: Times,
    /// Loss of the first and of the last step.
    pub losses: [f32; 2],
    /// Dispatches a step.
    pub dispatches: usize,
    /// Submits of one step and of ten, reads of the losses included.
    pub submits: [u64; 2],
    /// Bytes that the dispatches of a step bind, each binding counted.
    pub bytes_bound: u64,
    /// GPU objects created after the first run.
    pub created_later: u64,
    /// Bytes predicted for the plan, and bytes that were allocated on the device; on the CPU what
    /// the process's heap grew by at most.
    pub memory: [u64; 2],
    /// Time of each kernel in one step, each call apart.
    pub kernels: Vec<KernelTime>,
    /// Seconds of a streamed step that are no kernel's: between dispatches and around submits.
    pub between: f64,
}

/// A kernel's part of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelTime {
    /// Kernel.
    pub kernel: String,
    /// Calls a step.
    pub calls: usize,
    /// Seconds of all of them.
    pub seconds: f64,
}

/// R models trained side by side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replicas {
    /// Name of the workload.
    pub workload: String,
    /// Models.
    pub replicas: usize,
    /// Models of a tile, which one dispatch computes.
    pub tile: usize,
    /// Seconds a step of all of them; `None`: not run.
    pub step: Option<Times>,
    /// Steps of one model a second, all models together, by those of one model alone.
    pub growth: Option<f64>,
    /// Why it was not run.
    #[serde(default)]
    pub reason: String,
}

/// A workload timed turn by turn in Tern and, where there is one, in PyTorch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pair {
    /// `lstm` or `products`.
    pub group: String,
    /// Kernel, or `lstm`.
    pub what: String,
    /// Sizes: M × N × K; of an LSTM batch × hidden × steps.
    pub sizes: String,
    /// Our seconds.
    pub ours: Times,
    /// PyTorch's.
    pub theirs: Option<Times>,
    /// Our GFLOP/s.
    pub rate: f64,
    /// Our share of the roofline.
    pub share: Option<f64>,
}

/// Another framework in the same run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Framework, version and device.
    pub peer: String,
    /// The kinds of our devices that it is to be compared with.
    pub kinds: Vec<String>,
    /// Seconds by workload: `char-lstm`, `matmul-512`, kernel and sizes as in our row, …
    pub seconds: std::collections::BTreeMap<String, f64>,
}

/// What is looked at first: reports of another schema have other fields.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// If the file can't be read, is no report, or is of another schema.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        let no_report = || format!("{shown} is no report");
        let Version { schema } = serde_json::from_str(&text).with_context(no_report)?;
        if schema != SCHEMA {
            bail!("{shown} has schema {schema}, this program knows {SCHEMA}");
        }
        serde_json::from_str(&text).with_context(no_report)
    }

    /// Writes the report.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, &(serde_json::to_string_pretty(self)? + "\n"))
    }

    /// Rows and cases that were wrong.
    pub fn faults(&self) -> usize {
        let of = |d: &Device| {
            let checks: usize = d.checks.iter().map(|c| c.faults.len()).sum();
            let rows = d.kernels.iter().filter(|r| matches!(r.outcome, Outcome::Failed { .. }));
            checks + rows.count() + d.roofline.iter().map(|r| r.faults.len()).sum::<usize>()
        };
        self.devices.iter().map(of).sum()
    }
}

impl Roofline {
    /// Seconds that work of so many operations and bytes takes at least: what is slower, the
    /// computing or the moving. `None` where the roofline isn't known.
    pub fn least(&self, flops: u64, bytes: u64, half: bool) -> Option<f64> {
        let compute = if half { self.half } else { self.single };
        let moving = bytes as f64 / self.bandwidth?;
        let computing = if flops > 0 { flops as f64 / compute? } else { 0.0 };
        Some(moving.max(computing))
    }
}

/// A number of threads, in words.
pub fn threads(count: usize) -> String {
    format!("{count} thread{}", if count == 1 { "" } else { "s" })
}

impl Pair {
    /// How many times as fast as the peer we are.
    pub fn ratio(&self) -> Option<f64> {
        self.theirs.map(|theirs| theirs.median / self.ours.median)
    }

    /// The same of the fastest runs of both: what is left of it where the machine was disturbed.
    pub fn ratio_at_best(&self) -> Option<f64> {
        self.theirs.map(|theirs| theirs.least / self.ours.least)
    }
}

impl Device {
    /// The name for headings; of the `Cpu` device with threads and vectors.
    pub fn title(&self) -> String {
        let name = self.adapter.short();
        match &self.vectors {
            Some(Vectors { isa, threads: count }) => format!("{name}, {}, {isa}", threads(*count)),
            None => name.to_string(),
        }
    }
}

impl Adapter {
    /// The name without what drivers put in brackets, for headings.
    pub fn short(&self) -> &str {
        self.name.split(" (").next().unwrap_or(&self.name)
    }
}

/// Writes a file.
///
/// # Errors
/// If it can't be written, naming it.
pub fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
