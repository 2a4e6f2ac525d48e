//! Federated rounds: simulated on a device, and in Flower on the same machine, with the same
//! data, clients and first model.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tern_engine::nn::ModelSpec;
use tern_engine::{Device, IGNORE, RowData, TextData, TextWindows};
use tern_fl::layout::ModelKind;
use tern_fl::simulate::{
    Options as Simulated, Partition, Population, Simulation, files, partition,
};
use tern_fl::tokens::Alphabet;
use tern_fl::trainer::LocalData;
use tern_fl::{Layout, RunPlan};

use crate::Devices;
use crate::measure::times;
use crate::peers;
use crate::processor::{Processor, describe};
use crate::report::Times;
use crate::table::{Table, digits, seconds};

/// Digits of a client.
const DIGITS: usize = 600;
/// Characters of a window of text.
const WINDOW: usize = 80;
/// Rows of a batch of the peer's evaluation.
const EVALUATION_BATCH: usize = 256;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Workloads whose name contains this: mlp-10, mlp-100, mlp-1000, lstm-10; the first two
    /// and the last if left out.
    filter: Option<String>,
    #[command(flatten)]
    devices: Devices,
    #[command(flatten)]
    processor: Processor,
    /// Write the results to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds; the first of them is not counted.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    /// Run the same rounds in Flower's simulation with PyTorch.
    #[arg(long)]
    peers: bool,
    /// Python with `flwr[simulation]` and torch.
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// Folder of mnist8 and of the roles.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

/// Clients that all take part in every round.
struct Workload {
    name: &'static str,
    clients: usize,
    /// Digits of a client; `None` for roles of plays.
    digits: Option<usize>,
    rate: f64,
    /// Whether it is run by default.
    usual: bool,
}

const WORKLOADS: [Workload; 4] = [
    Workload { name: "mlp-10", clients: 10, digits: Some(DIGITS), rate: 0.1, usual: true },
    Workload { name: "mlp-100", clients: 100, digits: Some(DIGITS), rate: 0.1, usual: true },
    Workload { name: "mlp-1000", clients: 1000, digits: Some(60), rate: 0.1, usual: false },
    Workload { name: "lstm-10", clients: 10, digits: None, rate: 0.5, usual: true },
];

/// What a workload took on a device or in a peer.
#[derive(Serialize)]
struct Measured {
    workload: &'static str,
    /// Processor, threads and instruction set.
    processor: String,
    by: String,
    parameters: usize,
    clients: usize,
    samples: usize,
    /// Seconds from nothing to the first round.
    start: f64,
    /// Seconds a round, the first not counted.
    round: Times,
    /// Share of right answers on samples held out, after the last round.
    accuracy: f64,
}

/// What the peer prints.
#[derive(Deserialize)]
struct Found {
    peer: String,
    start: f64,
    rounds: Vec<f64>,
    accuracy: Vec<f64>,
}

/// Runs and prints.
///
/// # Errors
/// If data, a device or the peer can't be had, or a run fails.
pub fn run(options: &Options) -> Result<()> {
    options.processor.apply()?;
    let devices = options.devices.open()?;
    let wanted = |w: &&Workload| match &options.filter {
        Some(filter) => w.name.contains(filter.as_str()),
        None => w.usual,
    };
    let wanted: Vec<&Workload> = WORKLOADS.iter().filter(wanted).collect();
    if wanted.is_empty() {
        bail!("no workload's name contains {:?}", options.filter.as_deref().unwrap_or_default());
    }
    let folder = match &options.data {
        Some(folder) => folder.clone(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data"),
    };
    let mut results = Vec::new();
    for workload in wanted {
        for device in &devices {
            results.push(measure(workload, device, &folder, options.rounds)?);
        }
        if options.peers {
            results.push(peer(workload, &folder, options)?);
        }
    }
    println!("{}", describe());
    print(&results);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&results)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Samples of a workload, on the host.
enum Samples {
    Digits { train: files::Rows, test: files::Rows, parts: Vec<Vec<usize>> },
    Roles { train: Vec<Vec<u32>>, test: Vec<Vec<u32>>, vocabulary: usize },
}

impl Workload {
    fn samples(&self, folder: &Path) -> Result<Samples> {
        if let Some(digits) = self.digits {
            let read = |set: &str| {
                let name = |what: &str| folder.join(format!("mnist8-{set}-{what}-ubyte.gz"));
                files::digits(&name("images-idx3"), &name("labels-idx1"))
            };
            let (train, test) = (read("train")?, read("test")?);
            // So many of all, in even parts.
            let mut parts =
                partition(&train.labels, train.labels.len() / digits, Partition::Iid, 1)?;
            parts.truncate(self.clients);
            return Ok(Samples::Digits { train, test, parts });
        }
        let speeches = files::speeches(&[folder.join("shakespeare-roles.txt.gz")])?;
        let alphabet = Alphabet::of(speeches.iter().map(|s| s.text.as_str()));
        // Twenty roles spread over the plays: every other one is held out.
        let step = speeches.len() / (2 * self.clients);
        let tokens: Vec<Vec<u32>> =
            (0..2 * self.clients).map(|i| alphabet.encode(&speeches[i * step].text)).collect();
        let every_other = |first: usize| tokens.iter().skip(first).step_by(2).cloned().collect();
        let (train, test) = (every_other(0), every_other(1));
        Ok(Samples::Roles { train, test, vocabulary: alphabet.tokens() })
    }

    fn plan(&self, samples: &Samples, rounds: u32) -> RunPlan {
        let spec = match samples {
            Samples::Digits { train, .. } => ModelSpec::mlp(train.width, &[200, 200], 10),
            // FedAvg's Shakespeare model (McMahan et al. 2017).
            Samples::Roles { vocabulary, .. } => ModelSpec::language_model(*vocabulary, 8, 256, 2),
        };
        let mut plan = RunPlan::new(self.name, ModelKind::Layers(spec), rounds);
        plan.cohort.size = self.clients as u32;
        plan.training.learning_rate = self.rate;
        plan.seed = 1;
        plan
    }
}

impl Samples {
    fn population(&self, device: &Device) -> Result<Population> {
        Ok(match self {
            Samples::Digits { train, parts, .. } => {
                let features = (train.features.as_slice(), train.width);
                Population::rows(device, features, &train.labels, 10, parts)?
            }
            Samples::Roles { train, vocabulary, .. } => {
                Population::texts(device, train, *vocabulary, WINDOW)?
            }
        })
    }

    fn held_out(&self, device: &Device) -> Result<LocalData> {
        Ok(match self {
            Samples::Digits { test, .. } => LocalData::Rows(RowData::upload(
                device,
                &test.features,
                test.width,
                &test.labels,
                10,
            )?),
            Samples::Roles { test, vocabulary, .. } => LocalData::Text(TextData::upload(
                device,
                test,
                TextWindows::new(*vocabulary, WINDOW),
            )?),
        })
    }
}

fn measure(workload: &Workload, device: &Device, folder: &Path, rounds: u32) -> Result<Measured> {
    let begin = Instant::now();
    let samples = workload.samples(folder)?;
    let plan = workload.plan(&samples, rounds);
    let simulation = |held_out: Option<LocalData>| -> Result<Simulation> {
        let options = Simulated::new(device).held_out(held_out);
        Ok(Simulation::new(&plan, samples.population(device)?, options)?)
    };
    let mut timed = simulation(None)?;
    let start = begin.elapsed().as_secs_f64();
    let mut taken = Vec::new();
    loop {
        let begin = Instant::now();
        if timed.round()?.is_none() {
            break;
        }
        taken.push(begin.elapsed().as_secs_f64());
    }
    // Once more for the accuracy, whose measuring isn't part of a round.
    let mut measured = simulation(Some(samples.held_out(device)?))?;
    let mut accuracy = f64::NAN;
    while let Some(round) = measured.round()? {
        accuracy = round.head.metrics.get("accuracy").copied().unwrap_or(f64::NAN);
    }
    let layout = plan.check()?;
    let population = samples.population(device)?;
    Ok(Measured {
        workload: workload.name,
        processor: describe(),
        by: format!("Tern, {}", device.name()),
        parameters: layout.parameters().count(),
        clients: population.len(),
        samples: population.samples(),
        start,
        round: times(taken.split_off(1.min(taken.len()))),
        accuracy,
    })
}

fn peer(workload: &Workload, folder: &Path, options: &Options) -> Result<Measured> {
    let samples = workload.samples(folder)?;
    let plan = workload.plan(&samples, options.rounds);
    let layout = plan.check()?;
    let job = std::env::temp_dir().join(format!("tern-rounds-{}", std::process::id()));
    std::fs::create_dir_all(&job)?;
    let clients = write_job(&job, &samples, &plan, &layout)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/flower_rounds.py");
    let mut command = peers::python(&options.python);
    let output = command.arg(&script).arg(&job).output();
    let output = output.with_context(|| format!("{}", options.python.display()))?;
    std::fs::remove_dir_all(&job)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    let Some(line) = line.filter(|_| output.status.success()) else {
        bail!("{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    };
    let mut found: Found = serde_json::from_str(line)?;
    Ok(Measured {
        workload: workload.name,
        processor: describe(),
        by: found.peer,
        parameters: layout.parameters().count(),
        clients: clients.len(),
        samples: clients.last().map_or(0, |part| part[1]),
        start: found.start,
        round: times(found.rounds.split_off(1.min(found.rounds.len()))),
        accuracy: found.accuracy.last().copied().unwrap_or(f64::NAN),
    })
}

/// Writes what the peer reads, and returns each client's range of samples.
fn write_job(
    job: &Path,
    samples: &Samples,
    plan: &RunPlan,
    layout: &Layout,
) -> Result<Vec<[usize; 2]>> {
    let put = |name: &str, words: &[u32]| -> Result<()> {
        let path = job.join(name);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())
    };
    let bits = |floats: &[f32]| floats.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let initial = layout.parameters().initial(plan.seed);
    let unpadded: Vec<f32> = layout
        .parameters()
        .iter()
        .flat_map(|p| &initial[p.offset..p.offset + p.len()])
        .copied()
        .collect();
    put("model", &bits(&unpadded))?;
    let mut end = 0;
    let mut range = |len: usize| {
        end += len;
        [end - len, end]
    };
    let (kind, sizes, width, clients) = match samples {
        Samples::Digits { train, test, parts } => {
            let order = parts.concat();
            let row = |row: &usize| &train.features[row * train.width..][..train.width];
            put("train-x", &bits(&order.iter().flat_map(row).copied().collect::<Vec<_>>()))?;
            put("train-y", &order.iter().map(|row| train.labels[*row]).collect::<Vec<_>>())?;
            put("test-x", &bits(&test.features))?;
            put("test-y", &test.labels)?;
            let clients: Vec<_> = parts.iter().map(|part| range(part.len())).collect();
            ("rows", vec![train.width, 200, 200, 10], train.width, clients)
        }
        Samples::Roles { train, test, vocabulary } => {
            let mut clients = Vec::new();
            for (name, texts) in [("train", train), ("test", test)] {
                let (mut x, mut y) = (Vec::new(), Vec::new());
                for text in texts {
                    let before = x.len();
                    windows(text, &mut x, &mut y);
                    if name == "train" {
                        clients.push(range((x.len() - before) / WINDOW));
                    }
                }
                put(&format!("{name}-x"), &x)?;
                put(&format!("{name}-y"), &y)?;
            }
            ("text", vec![*vocabulary, 8, 256, 2], WINDOW, clients)
        }
    };
    let json = serde_json::json!({
        "kind": kind,
        "sizes": sizes,
        "width": width,
        "clients": clients,
        "batch": plan.training.batch,
        "rate": plan.training.learning_rate,
        "rounds": plan.rounds,
        "evaluation_batch": EVALUATION_BATCH,
        "threads": rayon::current_num_threads(),
    });
    std::fs::write(job.join("job.json"), json.to_string())?;
    Ok(clients)
}

/// The windows that the engine cuts a text into: inputs, and the tokens that follow them.
fn windows(text: &[u32], x: &mut Vec<u32>, y: &mut Vec<u32>) {
    for start in (0..text.len().saturating_sub(1)).step_by(WINDOW) {
        for at in start..start + WINDOW {
            x.push(text.get(at).copied().unwrap_or(0));
            y.push(text.get(at + 1).copied().unwrap_or(IGNORE));
        }
    }
}

fn print(results: &[Measured]) {
    let mut table = Table::new(&[
        "workload",
        "by",
        "clients",
        "samples",
        "start",
        "round",
        "least",
        "most",
        "accuracy",
        "times as fast",
    ]);
    for r in results {
        // Against the peer's row of the same workload.
        let peer = results.iter().find(|p| p.workload == r.workload && !p.by.starts_with("Tern"));
        let times = match peer {
            Some(peer) if r.by.starts_with("Tern") => digits(peer.round.median / r.round.median),
            _ => String::new(),
        };
        table.row([
            r.workload.to_string(),
            r.by.clone(),
            r.clients.to_string(),
            r.samples.to_string(),
            seconds(r.start),
            seconds(r.round.median),
            seconds(r.round.least),
            seconds(r.round.most),
            format!("{:.1} %", 100.0 * r.accuracy),
            times,
        ]);
    }
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_the_engines() {
        let text: Vec<u32> = (1..=170).collect();
        let (mut x, mut y) = (Vec::new(), Vec::new());
        windows(&text, &mut x, &mut y);
        let data = TextData::upload(&Device::cpu(), &[text], TextWindows::new(200, WINDOW));
        assert_eq!(x.len(), data.map(|data| data.len() * WINDOW).unwrap_or(0));
        assert_eq!((x[0], y[0], x[80], y[79], y[80]), (1, 2, 81, 81, 82));
        assert_eq!((x[169], y[168], y[169], y[239]), (170, 170, IGNORE, IGNORE));
    }
}
