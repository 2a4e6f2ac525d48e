//! PyTorch as a process that is asked for one workload at a time, so that both sides of a ratio
//! are timed right after each other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tern_engine::{Device, Kind};

use crate::measure::times;
use crate::processor::threads;
use crate::report::Peer;

/// The kinds of our devices that CUDA's are like.
pub const GPUS: &[&str] = &["discrete", "integrated", "virtual"];

/// PyTorch, running.
pub struct Torch {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Framework, version and device of `cpu` and, where there is one, of `cuda`.
    names: BTreeMap<String, String>,
    /// Median seconds of what it was asked for, by device and workload.
    found: BTreeMap<String, BTreeMap<String, f64>>,
}

/// The first line that it prints.
#[derive(Deserialize)]
struct Hello {
    peers: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Request<'a> {
    on: &'a str,
    what: &'a str,
    sizes: &'a str,
    budget: f64,
}

#[derive(Deserialize)]
struct Answer {
    /// Seconds of each run; `None`: PyTorch has no such workload.
    seconds: Option<Vec<f64>>,
}

impl Torch {
    /// Starts the script on as many threads as we have.
    ///
    /// # Errors
    /// If it doesn't start.
    pub fn start(python: &Path, script: &Path) -> Result<Self> {
        let mut command = super::python(python);
        command.arg(script).arg(threads().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both were asked for")
        };
        let found = BTreeMap::new();
        let answers = BufReader::new(answers);
        let mut torch = Torch { child, requests, answers, names: BTreeMap::new(), found };
        let hello: Hello = torch.line()?;
        torch.names = hello.peers;
        Ok(torch)
    }

    /// The next line that it prints.
    fn line<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("PyTorch ended: {}", self.child.wait()?);
        }
        serde_json::from_str(&line).with_context(|| format!("PyTorch says {line:?}"))
    }

    /// Its device that is like ours.
    fn like(&self, device: &Device) -> Option<&'static str> {
        let like = match device.profile().kind {
            Kind::Cpu => "cpu",
            Kind::Software => return None,
            _ => "cuda",
        };
        self.names.contains_key(like).then_some(like)
    }

    /// Seconds of each run of a workload, three at least; `None` if it has no device like ours or
    /// no such workload.
    ///
    /// # Errors
    /// If the process fails.
    pub fn seconds(
        &mut self,
        device: &Device,
        what: &str,
        sizes: &str,
        budget: Duration,
    ) -> Result<Option<Vec<f64>>> {
        let Some(on) = self.like(device) else { return Ok(None) };
        let request = Request { on, what, sizes, budget: budget.as_secs_f64() };
        let asked = || format!("asking PyTorch for {what} {sizes}");
        writeln!(self.requests, "{}", serde_json::to_string(&request)?).with_context(asked)?;
        let answer: Answer = self.line().with_context(asked)?;
        Ok(answer.seconds.filter(|seconds| !seconds.is_empty()))
    }

    /// Times a workload and keeps its median under a name.
    ///
    /// # Errors
    /// If the process fails.
    pub fn keep(
        &mut self,
        device: &Device,
        (what, sizes): (&str, &str),
        budget: Duration,
        name: &str,
    ) -> Result<()> {
        let Some(on) = self.like(device) else { return Ok(()) };
        if let Some(seconds) = self.seconds(device, what, sizes, budget)? {
            let all = self.found.entry(on.to_string()).or_default();
            all.insert(name.to_string(), times(seconds).median);
        }
        Ok(())
    }

    /// All that was kept. Ends the process.
    pub fn found(mut self) -> Vec<Peer> {
        let names = std::mem::take(&mut self.names);
        let kinds = |on: &str| if on == "cpu" { &["cpu"][..] } else { GPUS };
        let of = |(on, peer): (String, String)| Peer {
            peer,
            kinds: kinds(&on).iter().map(|kind| kind.to_string()).collect(),
            seconds: self.found.remove(&on).unwrap_or_default(),
        };
        names.into_iter().map(of).collect()
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about it here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A script in place of PyTorch, run by the shell.
    fn stand_in(name: &str, script: &str) -> Result<Torch> {
        let path = std::env::temp_dir().join(format!("tern-{name}-{}", std::process::id()));
        std::fs::write(&path, script)?;
        let torch = Torch::start(Path::new("sh"), &path);
        std::fs::remove_file(&path)?;
        torch
    }

    #[test]
    fn what_it_has_is_kept_by_name_and_what_it_lacks_is_left_out() {
        let script = "echo '{\"peers\": {\"cpu\": \"Fake 1\"}}'\nread a\n\
            case $a in *products*) echo '{\"seconds\": [3.0, 1.0, 2.0]}';; esac\nread b\n\
            echo '{\"seconds\": null}'\n";
        let (mut torch, device) = (stand_in("has", script).unwrap(), Device::cpu());
        for what in ["products", "nothing"] {
            torch.keep(&device, (what, "8 × 8"), Duration::ZERO, what).unwrap();
        }
        let found = torch.found();
        assert_eq!((found.len(), found[0].peer.as_str()), (1, "Fake 1"));
        assert_eq!(found[0].seconds, [("products".to_string(), 2.0)].into());
        assert_eq!(found[0].kinds, ["cpu"]);
    }

    #[test]
    fn an_end_halfway_is_an_error_that_names_the_workload() {
        let script = "echo '{\"peers\": {\"cpu\": \"Fake 1\"}}'\nread a\nexit 3\n";
        let mut torch = stand_in("ends", script).unwrap();
        let failed = torch.seconds(&Device::cpu(), "lstm", "1 × 2 × 3", Duration::ZERO);
        let message = format!("{:#}", failed.unwrap_err());
        assert!(message.contains("lstm 1 × 2 × 3") && message.contains('3'), "{message}");
    }
}
