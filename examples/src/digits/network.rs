//! The demo as real processes: a third node that aggregates, and every node a client over TLS.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use tern_engine::load_model;
use tern_fl::align::Settings;

use super::data::Transfer;
use super::transfer::{Bench, Judge};
use crate::network::{Place, Role};
use crate::progress::Progress;
use crate::report::Report;

/// What a network came to.
#[derive(Debug, Serialize)]
struct Networked {
    rounds: usize,
    /// Nodes that failed, by number.
    failed: Vec<usize>,
    /// Target accuracy after warming up, in the simulation.
    without: f64,
    /// Target accuracy of the model that the target downloaded.
    aligned: f64,
    /// Whether it is the model of a simulation, bit by bit; not compared if a node failed.
    same_bits: Option<bool>,
}

/// What a process does that another one started.
pub fn take_part(
    role: Role,
    place: &Place,
    bench: Bench<'_>,
    settings: &Settings,
    transfer: &Transfer,
) -> Result<()> {
    match role {
        Role::Server => {
            let (_, fusion, _) = bench.agreed(settings, transfer.sources.len() + 1);
            place.serve(Vec::new(), Some(Arc::new(fusion)))
        }
        Role::Client(number) => {
            let mut nodes = bench.nodes(settings, transfer)?.into_iter();
            let node = nodes.nth(number).with_context(|| format!("there is no node {number}"))?;
            place.take_part(number, node, bench.device).map(drop)
        }
    }
}

/// Runs a transfer as processes, and again in this one.
pub fn run(
    bench: Bench<'_>,
    settings: &Settings,
    transfer: &Transfer,
    report: &Report,
    out: &mut dyn Write,
) -> Result<()> {
    let nodes = bench.nodes(settings, transfer)?;
    let (count, target) = (nodes.len(), nodes.len() - 1);
    let (plan, _, initial) = bench.agreed(settings, count);
    let place = Place::create(&report.path("network"), count)?;
    let mut progress = Progress::new("processes", u64::from(plan.rounds));
    let ended = place.start(&plan, &initial, count, |rounds| {
        progress.update(rounds.len() as u64, None);
    })?;
    progress.finish();
    let name =
        |number: usize| transfer.sources.get(number).map_or("the target", |source| &source.0);
    place.tell_failed(&ended, |number| format!("Node {}", name(number)), out)?;
    let file = place.client(target).join("model.safetensors");
    let model = load_model(&file, bench.model.parameters())?;

    let mut judge = Judge::new(bench, settings, transfer)?;
    let mut without = 0.0;
    let names = (0..count).map(|number| place.identity(number)).collect::<Result<Vec<_>>>()?;
    let mut nodes: Vec<_> = names.into_iter().zip(nodes).collect();
    let mut progress = Progress::new("simulation", u64::from(plan.rounds));
    let (simulated, _) = bench.run(settings, &mut nodes, &mut |round, _, model| {
        progress.update(round.into(), None);
        if round == settings.warm_ups {
            without = judge.accuracy(model)?;
        }
        Ok(())
    })?;
    progress.finish();
    let aligned = judge.accuracy(&model)?;
    let same_bits = ended.failed.is_empty().then_some(simulated == model);
    let rounds = ended.rounds.len();
    writeln!(
        out,
        "{}: {rounds} rounds by {} processes. The target reads {:.1} % of digits that it never \
         trained on, without adaptation {:.1} %.",
        transfer.name,
        count + 1,
        100.0 * aligned,
        100.0 * without
    )?;
    match same_bits {
        Some(true) => writeln!(out, "In one process the model is the same, bit by bit.")?,
        Some(false) => writeln!(out, "In one process the model is another one!")?,
        None => (),
    }
    writeln!(out, "Report: {}", report.path("").display())?;
    let found = Networked { rounds, failed: ended.failed, without, aligned, same_bits };
    report.json("network.json", &found)?;
    Ok(())
}
