//! `tern simulate`: a run whose clients are all on this machine, on one device.

mod data;
mod folder;

use std::io::{IsTerminal, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use tern_engine::{Device, Interrupt};
use tern_fl::config::Config;
use tern_fl::coordinator::RoundRecord;
use tern_fl::metrics::Metrics;
use tern_fl::simulate::{self, Simulation};
use tern_fl::{Error, RunPlan};

use super::stop::Stop;
use data::Data;
use folder::Folder;

/// Simulates a run: hundreds of clients side by side on one device, thousands in all.
///
/// Without a configuration a model for the data is trained by federated averaging. Ctrl-C and
/// SIGTERM end it between two training steps, with the models of the round before and status 130
/// or 143; a second one ends it at once. However it ended, --resume goes on from its folder.
#[derive(Args, Debug)]
pub struct Options {
    /// A configuration, whose [run] is simulated.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    data: data::Options,
    /// Rounds; else the configuration's, or 20.
    #[arg(long)]
    rounds: Option<u32>,
    /// Clients of a round; else the configuration's, or 10.
    #[arg(long)]
    cohort: Option<u32>,
    /// Passes over a client's data in a round.
    #[arg(long)]
    epochs: Option<u32>,
    /// Samples of a batch.
    #[arg(long)]
    batch: Option<u32>,
    /// Learning rate of clients.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Seed of the first model, of cohorts and of training.
    #[arg(long)]
    seed: Option<u32>,
    /// Hidden units of the model's layers, where there is no configuration.
    #[arg(long, value_delimiter = ',', default_value = "128")]
    hidden: Vec<usize>,
    /// MiB that clients' models may take on the device.
    #[arg(long, default_value_t = 1024)]
    memory: u64,
    /// MiB that what clients keep between rounds may take there; the rest goes to a file.
    #[arg(long, default_value_t = 1024)]
    state_memory: u64,
    /// Folder for metrics (JSON lines), plan, models, a plot, and what the run goes on from; it must
    /// not hold a run yet.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with the run in the folder, by the same options, but for more --rounds if they are
    /// wanted: to the same models as if it had never ended.
    #[arg(long, requires = "out")]
    resume: bool,
    /// Rounds after which what the run goes on from is saved to the folder.
    #[arg(long, default_value = "10", value_name = "ROUNDS")]
    save_every: NonZeroU32,
}

/// Runs all rounds and prints a table.
pub fn run(options: &Options) -> Result<ExitCode> {
    let begin = Instant::now();
    let device = Device::from_env()?;
    let configured = match &options.config {
        Some(path) => {
            let run = Config::load(path)?.run;
            Some(run.with_context(|| format!("{}: no [run]", path.display()))?)
        }
        None => None,
    };
    let seed = options.seed.or(configured.as_ref().map(|plan| plan.seed)).unwrap_or(0);
    let data = Data::read(&options.data, configured.as_ref(), seed)?;
    let plan = plan(options, configured, &data, seed)?;
    let layout = plan.check()?;
    let clients = data.population(&device)?;
    let (count, samples) = (clients.len(), clients.samples());
    let folder = match &options.out {
        Some(path) => Some(Folder::open(path, options.resume)?),
        None => None,
    };
    let interrupt = Interrupt::new();
    let mut simulation = Simulation::new(
        &plan,
        clients,
        simulate::Options::new(&device)
            .memory(options.memory << 20)
            .state_memory(options.state_memory << 20)
            .held_out(data.held_out(&device)?)
            .interrupt(&interrupt)
            .folder(folder.as_ref().map(Folder::state))
            .spill(options.out.clone().unwrap_or_else(std::env::temp_dir)),
    )?;
    let mut rounds = match &folder {
        Some(folder) => folder.begin(&plan, simulation.rounds())?,
        None => Vec::new(),
    };
    super::say(format_args!(
        "{}: {} parameters; {count} clients with {samples} samples; {} of {} side by side on {}; \
         ready after {:.2} s",
        plan.name,
        layout.parameters().count(),
        simulation.slots(),
        plan.cohort.asked(),
        device.name(),
        begin.elapsed().as_secs_f64(),
    ));
    let stop = Stop::listen(move || interrupt.set())?;
    let mut seconds: f64 = rounds.iter().map(|row: &Row| row.seconds).sum();
    let status = loop {
        let begin = Instant::now();
        let record = match simulation.round() {
            Ok(Some(record)) => record,
            Ok(None) => break ExitCode::SUCCESS,
            Err(Error::Engine(tern_engine::Error::Interrupted)) => break stop.status(),
            Err(error) => return Err(error.into()),
        };
        let row = Row::new(&record, begin.elapsed().as_secs_f64(), simulation.spilled());
        seconds += row.seconds;
        progress(&row, plan.rounds, seconds);
        if let Some(folder) = &folder {
            folder.add(&row)?;
            if row.round % options.save_every == 0 {
                simulation.save()?;
            }
        }
        rounds.push(row);
    };
    let over = simulation.coordinator().finished();
    if !over && std::io::stderr().is_terminal() {
        // The line of the last round has no end yet.
        let _ = writeln!(std::io::stderr());
    }
    table(&rounds);
    simulation.save()?;
    if let Some(folder) = folder {
        folder.finish(&layout, &simulation, &rounds)?;
    }
    if !over {
        super::say(format_args!("stopped after round {} of {}", simulation.rounds(), plan.rounds));
    }
    Ok(status)
}

/// The configured plan or one for the data, changed by the options given.
fn plan(options: &Options, configured: Option<RunPlan>, data: &Data, seed: u32) -> Result<RunPlan> {
    let mut plan = match configured {
        Some(plan) => plan,
        None => {
            let mut plan = RunPlan::new("simulation", data.model(&options.hidden)?, 20);
            plan.training.learning_rate = 0.1;
            plan
        }
    };
    // Written with the plan, so that clients of a network read their files as these did.
    plan.schema = data.schema().cloned();
    plan.tokens = data.tokens().cloned();
    plan.seed = seed;
    plan.rounds = options.rounds.unwrap_or(plan.rounds);
    plan.cohort.size = options.cohort.unwrap_or(plan.cohort.size);
    plan.cohort.minimum = plan.cohort.minimum.min(plan.cohort.size);
    plan.training.epochs = options.epochs.unwrap_or(plan.training.epochs);
    plan.training.batch = options.batch.unwrap_or(plan.training.batch);
    plan.training.learning_rate = options.learning_rate.unwrap_or(plan.training.learning_rate);
    Ok(plan)
}

/// What is told of a round.
#[derive(serde::Serialize, serde::Deserialize)]
struct Row {
    round: u32,
    attempt: u32,
    seconds: f64,
    updates: usize,
    bytes: u64,
    spilled: usize,
    /// Means of what clients measured while they trained.
    training: Metrics,
    /// Of the new model on data held out.
    central: Metrics,
    /// Of the new model on the clients' data.
    clients: Metrics,
    best: bool,
}

impl Row {
    fn new(record: &RoundRecord, seconds: f64, spilled: usize) -> Self {
        Row {
            round: record.turn.round,
            attempt: record.turn.attempt,
            seconds,
            updates: record.uploads.len(),
            bytes: record.uploads.values().map(|upload| upload.bytes).sum(),
            spilled,
            training: record.training.clone(),
            central: record.head.metrics.clone(),
            clients: record.evaluation.clone(),
            best: record.score.is_some_and(|score| score.best),
        }
    }

    fn cells(&self) -> [String; 7] {
        let number = |of: &Metrics, name: &str| {
            of.get(name).map_or("–".into(), |value| format!("{value:.4}"))
        };
        [
            format!("{}{}", self.round, if self.best { "*" } else { "" }),
            self.updates.to_string(),
            format!("{:.2}", self.bytes as f64 / f64::from(1 << 20)),
            number(&self.training, "loss"),
            number(&self.central, "loss"),
            number(&self.central, "accuracy"),
            format!("{:.3}", self.seconds),
        ]
    }
}

const HEADING: [&str; 7] =
    ["round", "updates", "MiB", "training loss", "held-out loss", "accuracy", "seconds"];

/// The last round, in the place of the one before, and the time that is left if the others take as
/// long as those so far did on average.
fn progress(row: &Row, rounds: u32, seconds_so_far: f64) {
    let mut to = std::io::stderr();
    let [_, updates, _, loss, _, accuracy, seconds] = row.cells();
    let line = format!(
        "round {} of {rounds}: {updates} updates, loss {loss}, accuracy {accuracy}, {seconds} s{}",
        row.round,
        left(row.round, rounds, seconds_so_far),
    );
    // Nobody to tell is no reason to stop.
    let _ = match to.is_terminal() {
        true => write!(to, "\r\x1b[2K{line}{}", if row.round == rounds { "\n" } else { "" }),
        false => writeln!(to, "{line}"),
    };
}

/// What is left after so many rounds, in words; nothing after the last one.
fn left(round: u32, rounds: u32, seconds_so_far: f64) -> String {
    let seconds =
        seconds_so_far / f64::from(round.max(1)) * f64::from(rounds.saturating_sub(round));
    match seconds {
        _ if round >= rounds => String::new(),
        ..100.0 => format!(", {seconds:.0} s left"),
        ..6_000.0 => format!(", {:.0} min left", seconds / 60.0),
        _ => format!(", {:.1} h left", seconds / 3_600.0),
    }
}

/// All rounds, the better of them starred.
fn table(rounds: &[Row]) {
    let rows: Vec<[String; 7]> = rounds.iter().map(Row::cells).collect();
    let heading = HEADING.map(String::from);
    let all = || std::iter::once(&heading).chain(&rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADING.len()).map(width).collect();
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        super::say(format_args!("{}", cells.collect::<Vec<_>>().join("  ")));
    }
    let seconds: f64 = rounds.iter().map(|row| row.seconds).sum();
    super::say(format_args!("{} rounds in {seconds:.2} s", rounds.len()));
}

#[cfg(test)]
mod tests {
    use super::left;

    #[test]
    fn the_time_left_is_that_of_the_rounds_to_come() {
        assert_eq!(left(2, 10, 3.0), ", 12 s left");
        assert_eq!(left(1, 100, 4.0), ", 7 min left");
        assert_eq!(left(1, 10_001, 3.6), ", 10.0 h left");
        assert_eq!(left(10, 10, 30.0), "");
    }
}
