//! The demo as real processes over TLS, once with a third node that aggregates, and once with the
//! target as the aggregator, which takes part itself.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use tern_engine::load_model;
use tern_fl::methods::align::Settings;
use tern_fl::{RunPlan, Strategy};

use super::data::Transfer;
use super::transfer::{Bench, Judge};
use crate::network::{Ended, Place, Role, tell_same};
use crate::progress::Progress;
use crate::report::{Report, Series, Table};

/// Who adds up what the nodes send (4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Aggregator {
    /// A node without data.
    Third,
    /// The target.
    Target,
}

impl Aggregator {
    /// The folder where its processes meet, which tells them who it is.
    fn folder(self) -> &'static str {
        match self {
            Aggregator::Third => "third-node",
            Aggregator::Target => "target",
        }
    }

    /// Nodes that are processes of their own.
    fn clients(self, nodes: usize) -> usize {
        match self {
            Aggregator::Third => nodes,
            Aggregator::Target => nodes - 1,
        }
    }

    fn called(self) -> &'static str {
        match self {
            Aggregator::Third => "a third node",
            Aggregator::Target => "the target",
        }
    }
}

/// What a network came to.
#[derive(Debug, Serialize)]
struct Networked {
    /// Who added up.
    aggregator: Aggregator,
    rounds: usize,
    /// Nodes that failed, by number.
    failed: Vec<usize>,
    /// Target accuracy after warming up, in the simulation.
    without: f64,
    /// Target accuracy of the model that the target downloaded.
    aligned: f64,
    /// Round, and the nodes' mean task loss in it.
    task: Vec<(f64, f64)>,
    /// Round, and their mean loss of telling the domains apart.
    discriminator: Vec<(f64, f64)>,
    /// Whether it is the model of a simulation, bit by bit; not compared if a node missed a
    /// round.
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
    let target = transfer.sources.len();
    let join = |number: usize| -> Result<()> {
        let mut nodes = bench.nodes(settings, transfer)?.into_iter();
        let node = nodes.nth(number).with_context(|| format!("there is no node {number}"))?;
        place.take_part(number, node, bench.device).map(drop)
    };
    match role {
        Role::Server => {
            let (_, fusion, _) = bench.agreed(settings, target + 1);
            let fusion: Option<Arc<dyn Strategy>> = Some(Arc::new(fusion));
            match place.is_called(Aggregator::Target.folder()) {
                true => place.serve_while(Vec::new(), fusion, || join(target)),
                false => place.serve(Vec::new(), fusion),
            }
        }
        Role::Client(number) => join(number),
    }
}

/// Runs a transfer as processes, by either aggregator, and again in this one.
pub fn run(
    bench: Bench<'_>,
    settings: &Settings,
    transfer: &Transfer,
    report: &Report,
    out: &mut dyn Write,
) -> Result<()> {
    let nodes = bench.nodes(settings, transfer)?;
    let count = nodes.len();
    let (plan, _, initial) = bench.agreed(settings, count);
    let folder = report.path("network");
    let create = |by: Aggregator| Place::create(&folder.join(by.folder()), count);
    let places = [
        (Aggregator::Third, create(Aggregator::Third)?),
        (Aggregator::Target, create(Aggregator::Target)?),
    ];
    let first = &places[0].1;
    // Batches follow from the keys.
    places[1].1.take_keys(first, count)?;
    let mut ended = Vec::new();
    for (by, place) in &places {
        ended.push(run_by(*by, place, (&plan, &initial), transfer, out)?);
    }

    let mut judge = Judge::new(bench, settings, transfer)?;
    let mut without = 0.0;
    let names = (0..count).map(|number| first.identity(number)).collect::<Result<Vec<_>>>()?;
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
    let mut found = Vec::new();
    for ((by, place), ended) in places.iter().zip(ended) {
        let model = downloaded(place, count - 1, bench)?;
        let (rounds, aligned) = (ended.rounds.len(), judge.accuracy(&model)?);
        let same_bits = ended.complete(count).then_some(simulated == model);
        writeln!(
            out,
            "{}, added up by {}: {rounds} rounds by {} processes.",
            transfer.name,
            by.called(),
            by.clients(count) + 1,
        )?;
        tell_same(same_bits, out)?;
        let (task, discriminator) = (ended.curve("task"), ended.curve("discriminator"));
        let (aggregator, failed) = (*by, ended.failed);
        found.push(Networked {
            aggregator,
            rounds,
            failed,
            without,
            aligned,
            task,
            discriminator,
            same_bits,
        });
    }
    report.json("network.json", &found)?;
    let third = &found[0];
    let series = [
        Series { name: "task", points: &third.task },
        Series { name: "discriminator", points: &third.discriminator },
    ];
    let title = format!("{}: the nodes' training loss", transfer.name);
    report.plot("loss.svg", &title, ("round", "nats"), &series)?;
    writeln!(out, "\n{}\nReport: {}", table(&found), report.path("").display())?;
    Ok(())
}

/// Accuracy on digits of the target's kind that no node trained on.
fn table(found: &[Networked]) -> Table {
    let mut table = Table::new(["added up by", "no adaptation", "Align", "gain"]);
    for Networked { aggregator, without, aligned, .. } in found {
        let [before, after] = [without, aligned].map(|part| format!("{:.1} %", 100.0 * part));
        let gain = format!("{:+.1}", 100.0 * (aligned - without));
        table.row([aggregator.called().to_owned(), before, after, gain]);
    }
    table
}

/// The processes of one aggregator.
fn run_by(
    by: Aggregator,
    place: &Place,
    (plan, initial): (&RunPlan, &[f32]),
    transfer: &Transfer,
    out: &mut dyn Write,
) -> Result<Ended> {
    let nodes = transfer.sources.len() + 1;
    let mut progress = Progress::new(by.called(), u64::from(plan.rounds));
    let ended = place.start(plan, initial, by.clients(nodes), |rounds| {
        progress.update(rounds.len() as u64, None);
    })?;
    progress.finish();
    let name =
        |number: usize| transfer.sources.get(number).map_or("the target", |source| &source.0);
    place.tell_failed(&ended, |number| format!("Node {}", name(number)), out)?;
    Ok(ended)
}

/// The model that a node has in the end.
fn downloaded(place: &Place, node: usize, bench: Bench<'_>) -> Result<Vec<f32>> {
    let file = place.client(node).join("model.safetensors");
    Ok(load_model(&file, bench.model.parameters())?)
}
