//! The suite: the roofline, then every kernel, then training, on each device; one report.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tern_engine::{Device, Isa, Kind, Outcome, Source};

use crate::budget::Budget;
use crate::pairs::Bench;
use crate::peers::{Peers, Torch};
use crate::processor::{Processor, threads};
use crate::progress::Progress;
use crate::report::{self, Report, SCHEMA, compilers, html, markdown};
use crate::{Devices, devices, host, kernels, models, print, replicas, roofline, training};

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What the device can do at most.
    Roofline,
    /// All cases of every kernel against the reference.
    Checks,
    /// Kernels, timed.
    Kernels,
    /// Training steps, timed.
    Training,
    /// Models trained side by side, timed.
    Replicas,
    /// Training steps of an LSTM layer over a grid of sizes, beside PyTorch's. Without being
    /// named a part only of runs with `--peers`.
    Lstm,
    /// Matrix products of training's shapes, beside PyTorch's, likewise.
    Products,
}

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Kernels and models whose name contains this; all if left out.
    filter: Option<String>,
    #[command(flatten)]
    devices: Devices,
    #[command(flatten)]
    processor: Processor,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Smaller sizes and fewer repetitions: a look in less than a minute.
    #[arg(long)]
    quick: bool,
    /// Print the time of each kernel within a training step.
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    peers: Peers,
}

/// Where reports go besides the tables.
#[derive(Args)]
pub struct Files {
    /// Write the report to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write it as a page for browsers.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write it as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Tables of `tern-compilers` for the page, files or folders of them: devices without times.
    #[arg(long, value_name = "PATH", requires = "html")]
    compilers: Vec<PathBuf>,
}

impl Files {
    /// Writes the page and the Markdown of reports.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn pages(&self, reports: &[Report]) -> Result<()> {
        if let Some(path) = &self.html {
            let compiled = compilers::read(&self.compilers)?;
            report::write(path, &html::html(reports, &compiled))?;
        }
        if let Some(path) = &self.markdown {
            report::write(path, &markdown::markdown(reports))?;
        }
        Ok(())
    }

    /// Whether there is a page to write.
    pub fn any_page(&self) -> bool {
        self.html.is_some() || self.markdown.is_some()
    }

    /// Refuses, before anything is measured, folders that aren't there and what is no table.
    fn check(&self) -> Result<()> {
        compilers::read(&self.compilers)?;
        for path in [&self.json, &self.html, &self.markdown].into_iter().flatten() {
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
            if folder.is_some_and(|f| !f.is_dir()) {
                bail!("no folder for {}", path.display());
            }
        }
        Ok(())
    }
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        match part {
            Part::Lstm | Part::Products if self.only.is_empty() => self.peers.asked(),
            _ => self.only.is_empty() || self.only.contains(&part),
        }
    }

    /// Whether a kernel or a model is to be run.
    fn wanted(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|f| name.contains(f.as_str()))
    }
}

/// Runs the suite, prints tables and writes the files.
///
/// # Errors
/// If a device can't be opened, the filter fits nothing, a file can't be written, or a check
/// failed; the report is written before that.
pub fn run(options: &Options) -> Result<()> {
    options.files.check()?;
    options.processor.apply()?;
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let progress = Progress::new();
    let opened = options.devices.open()?;
    let names = || tern_shaders::kernels().map(|k| k.name);
    let models = models::named(options.filter.as_deref()).into_iter().map(|w| w.name);
    if !names().chain(models).any(|name| options.wanted(name)) {
        let filter = options.filter.as_deref().unwrap_or_default();
        bail!("no kernel's and no model's name contains {filter:?}");
    }
    let mut report = Report {
        schema: SCHEMA,
        tool: concat!("tern-benches ", env!("CARGO_PKG_VERSION")).into(),
        commit: host::commit(),
        time,
        quick: options.quick,
        host: host::host(),
        devices: Vec::new(),
        peers: Vec::new(),
    };
    let mut torch = options.peers.torch(&progress)?;
    for device in &opened {
        let measured = measure(options, device, torch.as_mut(), &progress)
            .with_context(|| format!("on {}", device.name()))?;
        report.devices.push(measured);
    }
    report.peers = torch.map(Torch::found).unwrap_or_default();
    report.peers.extend(options.peers.others(&progress)?);
    progress.clear();
    print::report(&report, options.profile);
    if let Some(path) = &options.files.json {
        report.write(path)?;
    }
    options.files.pages(std::slice::from_ref(&report))?;
    match report.faults() {
        0 => Ok(()),
        faults => bail!("{faults} checks failed"),
    }
}

fn measure(
    options: &Options,
    device: &Device,
    mut torch: Option<&mut Torch>,
    progress: &Progress,
) -> Result<report::Device> {
    let budget = Budget { quick: options.quick };
    let wanted = |name: &str| options.wanted(name);
    progress.part(&device.name());
    let cpu = device.profile().kind == Kind::Cpu;
    let mut measured = report::Device {
        adapter: devices::adapter(device.summary()),
        vectors: cpu
            .then(|| report::Vectors { isa: Isa::current().to_string(), threads: threads() }),
        roofline: None,
        self_tests: Vec::new(),
        choices: Vec::new(),
        checks: Vec::new(),
        kernels: Vec::new(),
        training: Vec::new(),
        replicas: Vec::new(),
        pairs: Vec::new(),
    };
    // Shares of the roofline need it.
    let [lstm, products] = [Part::Lstm, Part::Products].map(|part| options.wants(part));
    if options.wants(Part::Roofline) || options.wants(Part::Kernels) || lstm || products {
        progress.part("the roofline");
        measured.roofline = Some(roofline::measure(device, budget)?);
    }
    if options.wants(Part::Checks) {
        progress.part("checks of all kernels");
        measured.checks = kernels::check(device, budget, wanted, progress);
    }
    if options.wants(Part::Kernels) {
        progress.part("kernels");
        let roofline = measured.roofline.as_ref();
        let references = (roofline, torch.as_deref_mut());
        measured.kernels =
            kernels::time(device, budget, wanted, references, &measured.checks, progress)?;
    }
    if options.wants(Part::Training) {
        progress.part("training steps");
        let torch = torch.as_deref_mut();
        let models = models::named(options.filter.as_deref());
        measured.training = training::measure(device, budget, &models, torch, progress)?;
    }
    if options.wants(Part::Replicas) {
        progress.part("models side by side");
        measured.replicas = replicas::measure(device, budget, wanted, progress)?;
    }
    let roofline = measured.roofline.as_ref();
    let mut bench = Bench { device, budget, roofline, torch, progress };
    if lstm {
        progress.part("an LSTM layer");
        measured.pairs.extend(bench.lstm()?);
    }
    if products {
        progress.part("products");
        measured.pairs.extend(bench.products()?);
    }
    measured.choices = choices(device);
    // Of the variants that were taken up to here.
    measured.self_tests = self_tests(device);
    Ok(measured)
}

fn self_tests(device: &Device) -> Vec<report::SelfTest> {
    let of = |test: tern_engine::SelfTest| {
        let (outcome, reason) = match test.outcome {
            Outcome::Passed(_) => ("passed", String::new()),
            Outcome::Failed(reason) => ("failed", reason),
            Outcome::NotRun(reason) => ("not run", reason),
        };
        report::SelfTest {
            kernel: test.kernel.into(),
            variant: test.variant.into(),
            features: test.features,
            outcome: outcome.into(),
            reason,
        }
    };
    device.self_tests().into_iter().map(of).collect()
}

/// The choices of variants in force on a device.
pub fn choices(device: &Device) -> Vec<report::Choice> {
    let of = |choice: tern_engine::Choice| report::Choice {
        kernel: choice.kernel.into(),
        class: choice.class,
        variant: choice.variant.into(),
        source: match choice.source {
            Source::Shipped => "shipped",
            Source::Cache => "cache",
            Source::Measured => "measured",
        }
        .into(),
        seconds: choice.seconds,
    };
    device.choices().into_iter().map(of).collect()
}

/// Reads reports and writes them as one page, one Markdown text or both.
///
/// # Errors
/// If a file is no report or can't be written, or no file to write was named.
pub fn merge(paths: &[PathBuf], files: &Files) -> Result<()> {
    if !files.any_page() {
        bail!("nothing to write: name a file with --html or --markdown");
    }
    files.check()?;
    let read = |path: &PathBuf| Report::read(Path::new(path));
    let reports: Vec<Report> = paths.iter().map(read).collect::<Result<_>>()?;
    files.pages(&reports)
}
