//! A round of full-precision updates through the server without its network: how fast a body is
//! received, checked and added, and what memory that takes, which has a limit.
//!
//! `RAYON_NUM_THREADS=1 cargo bench -p tern-fl --bench aggregate [clients] [elements]`

#![allow(clippy::print_stdout, reason = "the numbers are what a bench is for")]

use std::time::{Duration, Instant};

use tern_protocol::layout::{ModelKind, TensorSpec};
use tern_protocol::update::Codec;
use tern_protocol::{ClientId, Digest, Millis, RunPlan, Turn, wire};

use tern_server::federation::{Federation, Options};

/// Bytes of a request.
const PIECE: usize = 1 << 18;
/// Most memory above that of the server at rest, in MB.
const LIMIT: f64 = 64.0;

/// A line of the kernel's account of this process, in KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let clients = numbers.next().unwrap_or(100);
    let elements = numbers.next().unwrap_or(1_000_000);
    let tensor = TensorSpec { name: "w".into(), shape: vec![elements] };
    let mut plan = RunPlan::new("aggregate", ModelKind::Tensors(vec![tensor]), 1);
    plan.cohort.size = u32::try_from(clients)?;
    let padded = plan.check()?.elements();
    let mut values: Vec<f32> = (0..padded).map(|i| (i as f32 * 0.001).sin()).collect();
    values[elements..].fill(0.0);
    let folder = tempfile::tempdir()?;
    let mut server = Federation::open(folder.path(), &plan, &values, Options::default())?;
    let body = Codec::full(&values);
    drop(values);
    let id = |number: usize| ClientId(Digest::of(&number.to_le_bytes()).0);
    for number in 0..clients {
        server.enroll(Millis(1), id(number), None)?;
        server.poll(Millis(1), &id(number), 10)?;
    }

    let idle = memory("VmRSS");
    let (turn, digest) = (Turn::new(1, 1), Digest::of(&body).0.to_vec());
    let mut spent = [Duration::ZERO; 3];
    for number in 0..clients {
        let finish = wire::Finish {
            round: 1,
            attempt: 1,
            digest: digest.clone(),
            samples: 1 + number as u32,
            ..Default::default()
        };
        let start = Instant::now();
        let mut incoming = server.incoming(&id(number), turn)?;
        for (at, piece) in body.chunks(PIECE).enumerate() {
            incoming.append((at * PIECE) as u64, piece)?;
        }
        let received = Instant::now();
        let checked = incoming.finish(&digest)?;
        let finished = Instant::now();
        server.accept(Millis(2), checked, finish)?;
        let added = Instant::now();
        spent[0] += received - start;
        spent[1] += finished - received;
        spent[2] += added - finished;
    }
    let start = Instant::now();
    server.tick(Millis(3))?;
    let made = start.elapsed();
    assert_eq!(server.rounds(0)?.len(), 1);

    let megabytes = (clients * body.len()) as f64 / 1e6;
    let rate = |time: Duration| megabytes / time.as_secs_f64();
    let all: Duration = spent.iter().sum();
    println!("{clients} clients, {elements} elements, {megabytes:.0} MB");
    for (name, time) in ["received", "hashed and checked", "journaled and added"].iter().zip(spent)
    {
        println!("{name:>22} {:8.0} MB/s", rate(time));
    }
    println!("{:>22} {:8.0} MB/s", "together", rate(all));
    println!("{:>22} {:8.1} ms", "model made", 1e3 * made.as_secs_f64());
    let above = memory("VmHWM").saturating_sub(idle) as f64 / 1e3;
    println!("{:>22} {above:8.1} MB above {:.1}", "peak memory", idle as f64 / 1e3);
    match above <= LIMIT {
        true => Ok(()),
        false => {
            Err(format!("the peak is {above:.1} MB above rest, expected {LIMIT} at most").into())
        }
    }
}
