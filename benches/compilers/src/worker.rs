//! Compiling in a process of its own, which may take too long or end: the parent goes on with the
//! next pipeline in another one.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tern_shaders::{AnyKernel, Variant, kernels};

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
        say(Message::Done(outcome))?;
    }
    Ok(())
}

struct Worker {
    process: Child,
    messages: Receiver<Message>,
}

impl Worker {
    fn start(filter: &str, first: usize) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--worker", &first.to_string(), filter])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a compiler")?;
        let Some(output) = process.stdout.take() else { bail!("a compiler without output") };
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
        Ok(Worker { process, messages })
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

/// Has the driver that the loader finds make all pipelines; `limit` for each.
///
/// # Errors
/// If there is no driver.
pub fn compile(filter: &str, limit: Duration) -> Result<(About, Vec<(Job, Outcome)>)> {
    let jobs = jobs(filter);
    if jobs.is_empty() {
        bail!("no kernel's name contains {filter:?}");
    }
    let (mut about, mut outcomes) = (None, Vec::with_capacity(jobs.len()));
    while outcomes.len() < jobs.len() {
        let mut worker = Worker::start(filter, outcomes.len())?;
        match worker.next(START) {
            Ok(Message::Opened(found)) => about = Some(found),
            Ok(Message::Done(_)) => bail!("a compiler that doesn't say what it is"),
            Err(reason) => bail!("no driver: {reason}"),
        }
        while outcomes.len() < jobs.len() {
            match worker.next(limit) {
                Ok(Message::Done(outcome)) => outcomes.push(outcome),
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
