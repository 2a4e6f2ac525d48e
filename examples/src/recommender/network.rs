//! The demo as real processes: a server, and every terminal a client over TLS.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use tern_engine::{Device, load_model};
use tern_fl::layout::ModelKind;
use tern_fl::plan::{Encoding, UpdateKind};
use tern_fl::server::local::{self, Client};
use tern_fl::{Layout, RunPlan};

use super::arms::{ARMS, Arm};
use super::data::Data;
use super::device::{Hits, Recommender, popularity};
use super::options::{Options, Scale};
use super::train;
use crate::network::{Place, Role, tell_same};
use crate::progress::Progress;
use crate::report::{Series, Table};

/// What a process does that another one started.
pub fn take_part(role: Role, place: &Place, data: &Data, device: &Device) -> Result<()> {
    match role {
        Role::Server => place.serve(Vec::new(), None),
        Role::Client(number) => {
            let Client { trainer, .. } = train::client(data, number, device)?;
            place.take_part(number, trainer, device).map(drop)
        }
    }
}

/// Whether a way runs as processes: ternary updates, and such that only their sum is known of.
fn networked(arm: &Arm) -> bool {
    (arm.kind, arm.uplink, arm.downlink) == (UpdateKind::Delta, Encoding::Ternary, Encoding::Full)
}

/// What a network came to.
#[derive(Debug, Serialize)]
struct Networked {
    arm: Arm,
    rounds: usize,
    /// Terminals that failed, by number.
    failed: Vec<usize>,
    /// Of the model that a terminal downloaded.
    hits: Hits,
    /// Kilobytes of updates and of models, the mean of a round.
    kilobytes: [f64; 2],
    /// Round, and mean loss of the terminals' training.
    loss: Vec<(f64, f64)>,
    /// Whether it is the model of one process, bit by bit; not compared unless all terminals
    /// took part in every round.
    same_bits: Option<bool>,
}

/// Runs these ways as processes, one after the other.
pub fn run(
    options: &Options,
    scale: &Scale,
    data: &Data,
    device: &Device,
    out: &mut dyn Write,
) -> Result<()> {
    let report = options.run.report("recommender")?;
    let mut found = Vec::new();
    for arm in ARMS.iter().filter(|arm| networked(arm)) {
        let folder = report.path("network").join(match arm.secure {
            true => "secure",
            false => "plain",
        });
        found.push(run_arm(arm, options, scale, (data, device), &folder, out)?);
    }
    writeln!(out, "\n{}\nReport: {}", table(data, &found), report.path("").display())?;
    report.json("network.json", &found)?;
    let series = found.iter().map(|way| Series { name: way.arm.name, points: &way.loss });
    let axes = ("round", "nats a sample");
    report.plot("loss.svg", "Terminals' training loss", axes, &series.collect::<Vec<_>>())?;
    Ok(())
}

/// Percent, and kilobytes a round.
fn table(data: &Data, found: &[Networked]) -> Table {
    let mut table = Table::new(["", "hit@1 %", "hit@3 %", "MRR %", "up kB/round", "down kB/round"]);
    let percent =
        |hits: &Hits| [hits.hit1, hits.hit3, hits.mrr].map(|x| format!("{:.1}", 100.0 * x));
    let floor = ["popularity".to_owned()].into_iter().chain(percent(&popularity(data)));
    table.row(floor);
    for way in found {
        let kilobytes = way.kilobytes.map(|kilobytes| format!("{kilobytes:.1}"));
        let cells = percent(&way.hits).into_iter().chain(kilobytes);
        table.row([way.arm.name.to_owned()].into_iter().chain(cells));
    }
    table
}

/// Runs one of them, and measures the model that a terminal downloaded.
fn run_arm(
    arm: &Arm,
    options: &Options,
    scale: &Scale,
    (data, device): (&Data, &Device),
    folder: &Path,
    out: &mut dyn Write,
) -> Result<Networked> {
    let model = ModelKind::Layers(train::spec(data, scale));
    let plan = arm.plan(&model, scale, options.seed);
    let layout = Layout::of(&model)?;
    let initial = layout.parameters().initial(plan.seed);
    let terminals = data.terminals.len();
    let place = Place::create(folder, terminals)?;
    let mut progress = Progress::new(arm.name, u64::from(scale.rounds));
    let ended = place.start(&plan, &initial, terminals, |rounds| {
        progress.update(rounds.len() as u64, None);
    })?;
    progress.finish();
    place.tell_failed(&ended, |number| format!("Terminal {}", data.terminals[number].name), out)?;
    let file = (0..terminals)
        .filter(|number| !ended.failed.contains(number))
        .map(|number| place.client(number).join("model.safetensors"))
        .next()
        .context("no terminal has a model")?;
    let mut recommender = Recommender::new(device, &train::spec(data, scale), train::ROWS)?;
    let downloaded = load_model(&file, layout.parameters())?;
    recommender.set_model(&downloaded)?;
    let hits = recommender.measure(data, &data.held_out())?;
    let rounds = ended.rounds.len();
    writeln!(out, "{rounds} rounds of {} by {} processes.", arm.name, terminals + 1)?;
    // Who is drawn depends on who is there, unless all are.
    let same_bits = match ended.complete(terminals) {
        true => Some(in_one_process(&plan, &initial, &place, data, device)? == downloaded),
        false => None,
    };
    tell_same(same_bits, out)?;
    Ok(Networked {
        arm: *arm,
        rounds,
        hits,
        kilobytes: [ended.kilobytes(|row| row.bytes_up), ended.kilobytes(|row| row.bytes_down)],
        loss: ended.curve("loss"),
        failed: ended.failed,
        same_bits,
    })
}

/// The model of the same run by the same keys in this process.
fn in_one_process(
    plan: &RunPlan,
    initial: &[f32],
    place: &Place,
    data: &Data,
    device: &Device,
) -> Result<Vec<f32>> {
    let mut clients = train::clients(data, device)?;
    for (number, client) in clients.iter_mut().enumerate() {
        client.identity = place.key(number)?;
    }
    let folder = place.path("in-one-process");
    let options = local::Options::new(device, folder).run(place.run_id()?);
    Ok(local::run(plan, Some(initial), &mut clients, options, |_, _| ())?.best)
}
