//! Compiling in a process of its own, which may take too long or end: the parent goes on with the
//! next pipeline in another one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tern_shaders::{AnyKernel, Variant, kernels};

use super::statistics;
use super::vulkan::{About, Driver, Pipeline};

/// Until a worker says which device it has.
const START: Duration = Duration::from_secs(60);

/// A pipeline to be made.
#[derive(Clone, Copy)]
pub struct Job {
    pub kernel: &'static AnyKernel,
    pub variant: &'static Variant,
    /// With bounds checks.
    pub checked: bool,
}

/// Every variant whose kernel's name contains the filter, without checks and with them.
pub fn jobs(filter: &str) -> Vec<Job> {
    let kernels = kernels().filter(|kernel| kernel.name.contains(filter));
    let variants = kernels.flat_map(|kernel| kernel.variants.iter().map(move |v| (kernel, v)));
    variants
        .flat_map(|(kernel, variant)| [false, true].map(|checked| Job { kernel, variant, checked }))
        .collect()
}

/// What a worker writes, a line each.
#[derive(Serialize, Deserialize)]
enum Message {
    Opened(About),
    /// What became of the next job.
    Done(Outcome),
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// The driver made it.
    Made(Pipeline),
    /// Refused, too slow, or the end of the compiler: why.
    Failed(String),
    /// The device lacks a feature.
    Unsupported,
}

/// Writes what becomes of the jobs from `first` on.
///
/// # Errors
/// If there is no driver.
pub fn work(filter: &str, first: usize) -> Result<()> {
    let say = |message: Message| -> Result<()> {
        println!("{}", serde_json::to_string(&message)?);
        Ok(())
    };
    let driver = Driver::open()?;
    say(Message::Opened(driver.about.clone()))?;
    for Job { kernel, variant, checked } in jobs(filter).into_iter().skip(first) {
        let outcome = match driver.supports(variant) {
            true => match driver.compile(kernel, variant, checked) {
                Ok(pipeline) => Outcome::Made(pipeline),
                Err(e) => Outcome::Failed(format!("{e:#}")),
            },
            false => Outcome::Unsupported,
        };
        // Standard error isn't buffered: what the driver wrote there is before it.
        eprintln!("{END}");
        say(Message::Done(outcome))?;
    }
    Ok(())
}

/// The line of standard error that ends a job's.
const END: &str = "tern-compilers: end of a job";

struct Worker {
    process: Child,
    messages: Receiver<Message>,
    /// What the driver wrote to standard error, a job each.
    said: Receiver<Vec<String>>,
}

impl Worker {
    fn start(program: &Path, filter: &str, first: usize) -> Result<Self> {
        let mut process = Command::new(program)
            .args(["--worker", &first.to_string(), filter])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let (Some(output), Some(errors)) = (process.stdout.take(), process.stderr.take()) else {
            bail!("a compiler without output")
        };
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(|line| line.ok());
            // Drivers write what they like there, too.
            for message in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let (sender, said) = channel();
        std::thread::spawn(move || {
            let mut own = Vec::new();
            for line in BufReader::new(errors).lines().map_while(|line| line.ok()) {
                if line == END {
                    if sender.send(std::mem::take(&mut own)).is_err() {
                        break;
                    }
                } else if statistics::of_shader_db(&line).is_some() {
                    own.push(line);
                } else {
                    eprintln!("{line}");
                }
            }
        });
        Ok(Worker { process, messages, said })
    }

    /// The next message, or why there is none.
    fn next(&mut self, limit: Duration) -> std::result::Result<Message, String> {
        match self.messages.recv_timeout(limit) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("took longer than {} s", limit.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => match self.process.wait() {
                Ok(status) => Err(format!("the compiler ended: {status}")),
                Err(e) => Err(format!("the compiler ended: {e}")),
            },
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only for a process that is over.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// With what the driver wrote, which may be more than it tells who asks: of some only how long the
/// code is.
fn told(outcome: Outcome, said: &[String]) -> Outcome {
    let Outcome::Made(mut pipeline) = outcome else { return outcome };
    let mut written = said.iter().filter_map(|line| statistics::of_shader_db(line));
    for (program, written) in pipeline.programs.iter_mut().zip(&mut written) {
        program.statistics.extend(written.statistics);
    }
    pipeline.programs.extend(written);
    Outcome::Made(pipeline)
}

/// Has the driver that the loader finds make all pipelines, `limit` for each, in processes of a
/// program that is this one or starts it.
///
/// # Errors
/// If there is no driver.
pub fn compile(
    program: &Path,
    filter: &str,
    limit: Duration,
) -> Result<(About, Vec<(Job, Outcome)>)> {
    let jobs = jobs(filter);
    if jobs.is_empty() {
        bail!("no kernel's name contains {filter:?}");
    }
    let (mut about, mut outcomes) = (None, Vec::with_capacity(jobs.len()));
    while outcomes.len() < jobs.len() {
        let mut worker = Worker::start(program, filter, outcomes.len())?;
        match worker.next(START) {
            Ok(Message::Opened(found)) => about = Some(found),
            Ok(Message::Done(_)) => bail!("a compiler that doesn't say what it is"),
            Err(reason) => bail!("no driver: {reason}"),
        }
        while outcomes.len() < jobs.len() {
            match worker.next(limit) {
                Ok(Message::Done(outcome)) => {
                    let said = worker.said.recv_timeout(START).unwrap_or_default();
                    outcomes.push(told(outcome, &said));
                }
                Ok(Message::Opened(_)) => bail!("a compiler that began anew"),
                Err(reason) => {
                    outcomes.push(Outcome::Failed(reason));
                    break;
                }
            }
        }
    }
    let about = about.context("a compiler that says nothing")?;
    Ok((about, jobs.into_iter().zip(outcomes).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::vulkan::Program;
    use super::*;

    #[test]
    fn what_a_driver_writes_joins_what_it_tells() {
        let told_of = |programs: Vec<Program>| {
            let said =
                ["SHADER-DB: COMPUTE shader: 12 inst, 2 threads, 3:4 spills:fills".to_owned()];
            let Outcome::Made(pipeline) =
                told(Outcome::Made(Pipeline { seconds: 0.1, programs }), &said)
            else {
                panic!("it was made")
            };
            assert_eq!(pipeline.programs.len(), 1);
            statistics::Statistics::of_all(&pipeline.programs)
        };
        let statistics = [("Code Size".to_owned(), 64.0)].into();
        let found = told_of(vec![Program { name: "compute".into(), subgroup: 8, statistics }]);
        assert_eq!(
            (found.subgroup, found.instructions, found.spills),
            (Some(8), Some(12), Some(3))
        );
        let found = told_of(Vec::new());
        assert_eq!((found.subgroup, found.instructions, found.waves), (None, Some(12), Some(2)));
    }
}
