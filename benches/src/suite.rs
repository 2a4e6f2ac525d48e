//! The suite: the roofline, then every kernel, then training, on each device; one report.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tern_engine::Device;

use crate::budget::Budget;
use crate::device::{self, Request};
use crate::kernels::Variants;
use crate::pages::{compilers, html, markdown};
use crate::pairs::Bench;
use crate::peers::{Peers, Torch};
use crate::processor::{Processor, threads};
use crate::progress::Progress;
use crate::report::{self, Report, SCHEMA};
use crate::{Devices, Watch, heap, host, models, print, replicas};

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
    /// Kernels and models whose name contains this or, after `!`, does not; all if left out.
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

    /// What is measured in browsers, too.
    fn request(&self) -> Request<'_> {
        // Shares of the roofline need it.
        let shared = [Part::Roofline, Part::Kernels, Part::Lstm, Part::Products];
        Request {
            roofline: shared.into_iter().any(|part| self.wants(part)),
            checks: self.wants(Part::Checks).then_some(Variants::Chosen),
            kernels: self.wants(Part::Kernels),
            training: self.wants(Part::Training),
            budget: Budget { quick: self.quick },
            threads: threads(),
            filter: self.filter.as_deref(),
        }
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
    let request = options.request();
    if !names().chain(models).any(|name| request.wanted(name)) {
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
    report.peers.extend(options.peers.others(options.filter.as_deref(), &progress)?);
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

/// Shows progress, times the peer's right after ours, and counts this process's heap.
struct Looking<'a> {
    progress: &'a Progress,
    torch: Option<&'a mut Torch>,
}

impl Watch for Looking<'_> {
    fn part(&mut self, what: &str) {
        self.progress.part(what);
    }

    fn step(&mut self, done: usize, all: usize, what: &str) {
        self.progress.step(done, all, what);
    }

    fn timed(
        &mut self,
        device: &Device,
        what: (&str, &str),
        budget: Duration,
        name: &str,
    ) -> Result<()> {
        self.torch.as_mut().map_or(Ok(()), |torch| torch.keep(device, what, budget, name))
    }

    fn mark(&mut self) -> u64 {
        heap::mark()
    }

    fn peak(&mut self) -> u64 {
        heap::peak()
    }
}

fn measure(
    options: &Options,
    device: &Device,
    mut torch: Option<&mut Torch>,
    progress: &Progress,
) -> Result<report::Device> {
    let request = options.request();
    let budget = request.budget;
    progress.part(&device.name());
    let mut looking = Looking { progress, torch: torch.as_deref_mut() };
    let mut measured = device.wait(device::measure(device, &request, &mut looking))?;
    if options.wants(Part::Replicas) {
        progress.part("models side by side");
        let wanted = |name: &str| request.wanted(name);
        measured.replicas = replicas::measure(device, budget, wanted, progress)?;
    }
    let roofline = measured.roofline.as_ref();
    let mut bench = Bench { device, budget, roofline, torch, progress };
    if options.wants(Part::Lstm) {
        progress.part("an LSTM layer");
        measured.pairs.extend(bench.lstm()?);
    }
    if options.wants(Part::Products) {
        progress.part("products");
        measured.pairs.extend(bench.products()?);
    }
    device::conclude(device, &mut measured);
    Ok(measured)
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
