//! The process that starts the others, and waits for them.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use tern_engine::nn::ModelSpec;
use tern_engine::save_model;
use tern_fl::RunPlan;
use tern_fl::layout::ModelKind;
use tern_fl::server::http::Row;

use super::{FAREWELL, FOUND, Place};
use crate::progress::Progress;

/// Time that a server has to come up; far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a network leaves.
#[derive(Debug)]
pub struct Ended {
    /// The rounds, as the server wrote them down.
    pub rounds: Vec<Row>,
    /// Clients that ended with an error, by number.
    pub failed: Vec<usize>,
}

impl Ended {
    /// Whether so many clients took part in every round: only then the model follows from plan,
    /// keys and data.
    pub fn complete(&self, clients: usize) -> bool {
        self.rounds.iter().all(|row| row.clients as usize == clients)
    }

    /// A metric by round, of the rounds that have it.
    pub fn curve(&self, metric: &str) -> Vec<(f64, f64)> {
        let point = |row: &Row| Some((f64::from(row.round), *row.metrics.get(metric)?));
        self.rounds.iter().filter_map(point).collect()
    }

    /// Kilobytes of a round, the mean.
    pub fn kilobytes(&self, bytes: impl Fn(&Row) -> u64) -> f64 {
        self.rounds.iter().map(bytes).sum::<u64>() as f64 / 1e3 / self.rounds.len().max(1) as f64
    }
}

/// Says whether a network came to the model of one process, where they can be compared.
pub fn tell_same(same_bits: Option<bool>, out: &mut dyn Write) -> Result<()> {
    match same_bits {
        Some(true) => writeln!(out, "In one process the model is the same, bit by bit.")?,
        Some(false) => writeln!(out, "In one process the model is another one!")?,
        None => (),
    }
    Ok(())
}

/// A process that ends with its parent.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    /// Starts the processes, this command once more for each, with the same options, and waits
    /// until every client has ended. `clients` is how many are processes of their own: one that
    /// the server is itself comes after them. `alive` is called now and then.
    ///
    /// # Errors
    /// If the server ends, or too few clients for a round are left.
    pub fn start(
        &self,
        plan: &RunPlan,
        initial: &[f32],
        clients: usize,
        alive: impl FnMut(&[Row]),
    ) -> Result<Ended> {
        self.run_processes(plan, initial, clients, plan.cohort.minimum as usize, alive)
    }

    /// [`Place::start`], with the fewest clients that are of use.
    fn run_processes(
        &self,
        plan: &RunPlan,
        initial: &[f32],
        clients: usize,
        fewest: usize,
        mut alive: impl FnMut(&[Row]),
    ) -> Result<Ended> {
        let layout = plan.check()?;
        self.write("plan.json", serde_json::to_string_pretty(plan)?.as_bytes())?;
        save_model(&self.path("initial.safetensors"), layout.parameters(), initial)?;
        let mut server = self.process("server")?;
        let since = Instant::now();
        while !self.path("address").exists() {
            if let Some(status) = server.0.try_wait()? {
                bail!("the server ended, {status}: {}", self.read("server.log")?);
            }
            ensure!(since.elapsed() < PATIENCE, "the server isn't there after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let start = |number: usize| self.process(&number.to_string());
        let mut running = (0..clients).map(start).collect::<Result<Vec<_>>>()?;
        let everybody = (0..).take_while(|number| self.client(*number).exists()).count();
        let mut failed = Vec::new();
        let mut ended = vec![false; clients];
        while ended.contains(&false) {
            std::thread::sleep(Duration::from_millis(100));
            for (number, process) in running.iter_mut().enumerate() {
                if let (false, Some(status)) = (ended[number], process.0.try_wait()?) {
                    ended[number] = true;
                    if !status.success() {
                        failed.push(number);
                    }
                }
            }
            if let Some(status) = server.0.try_wait()? {
                bail!("the server ended, {status}: {}", self.read("server.log")?);
            }
            let said = |number: &usize| self.read(&format!("{number}.log")).unwrap_or_default();
            let all = || failed.iter().map(said).collect::<String>();
            ensure!(failed.len() < clients, "every client failed: {}", all());
            // Once one has ended well, so has the run.
            let over = ended.iter().filter(|ended| **ended).count() > failed.len();
            let left = everybody - failed.len();
            ensure!(
                failed.is_empty() || over || left >= fewest,
                "{left} of {everybody} clients are left, expected {fewest} or more: {}",
                all()
            );
            alive(&self.rounds()?);
        }
        if let Some(mut input) = server.0.stdin.take() {
            // It may have ended already, which waiting for it shows.
            let _ = input.write_all(FAREWELL);
        }
        let status = server.0.wait()?;
        ensure!(status.success(), "the server ended, {status}: {}", self.read("server.log")?);
        Ok(Ended { rounds: self.rounds()?, failed })
    }

    /// [`Place::start`] where nobody takes part in rounds: what the server is for is its services.
    /// Returns what each client wrote down ([`FOUND`]), `None` for those that failed.
    pub fn start_services<T: DeserializeOwned>(
        &self,
        demo: &str,
        clients: &[String],
        out: &mut dyn Write,
    ) -> Result<Vec<Option<T>>> {
        let idle = RunPlan::new(demo, ModelKind::Layers(ModelSpec::mlp(1, &[], 2)), 1);
        let initial = idle.check()?.parameters().initial(0);
        let all = 0..clients.len();
        let mut progress = Progress::new("processes", clients.len() as u64);
        let ended = self.run_processes(&idle, &initial, clients.len(), 1, |_| {
            let done = |number: &usize| self.client(*number).join(FOUND).exists();
            progress.update(all.clone().filter(done).count() as u64, None);
        })?;
        progress.finish();
        self.tell_failed(&ended, |number| clients[number].clone(), out)?;
        let found = |number| match ended.failed.contains(&number) {
            true => Ok(None),
            false => self.found(&self.client(number)).map(Some),
        };
        all.clone().map(found).collect()
    }

    /// Says who failed, and where to read why.
    pub fn tell_failed(
        &self,
        ended: &Ended,
        called: impl Fn(usize) -> String,
        out: &mut dyn Write,
    ) -> Result<()> {
        for number in &ended.failed {
            let log = self.path(&format!("{number}.log"));
            writeln!(out, "{} failed: see {}", called(*number), log.display())?;
        }
        Ok(())
    }

    /// The rounds so far.
    pub(super) fn rounds(&self) -> Result<Vec<Row>> {
        let path = self.run().join("metrics.jsonl");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        // The last line may be half written.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    fn process(&self, role: &str) -> Result<Running> {
        let command = std::env::current_exe()?;
        let log = fs::File::create(self.path(&format!("{role}.log")))?;
        let options = std::env::args_os().skip(1).filter(|option| option != "--network");
        let child = Command::new(&command)
            .args(options.collect::<Vec<OsString>>())
            .args(["--role", role, "--place"])
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn();
        child.map(Running).with_context(|| command.display().to_string())
    }
}
