//! The demo as real processes: a server, and every terminal a client over TLS.

use std::io::Write;

use anyhow::{Context, Result};
use tern_engine::{Device, load_model};
use tern_fl::Layout;
use tern_fl::layout::ModelKind;
use tern_fl::local::Client;

use super::arms::ARMS;
use super::data::Data;
use super::device::Recommender;
use super::options::{Options, Scale};
use super::train;
use crate::network::{Place, Role};
use crate::progress::Progress;
use crate::report::Report;

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

/// Runs the ternary way as processes, and measures the model that a terminal downloaded.
pub fn run(
    options: &Options,
    scale: &Scale,
    data: &Data,
    device: &Device,
    out: &mut dyn Write,
) -> Result<()> {
    let report = Report::of("recommender", options.out.as_deref())?;
    let model = ModelKind::Layers(train::spec(data, scale));
    let arm = &ARMS[1];
    let plan = arm.plan(&model, scale, options.seed);
    let layout = Layout::of(&model)?;
    let initial = layout.parameters().initial(plan.seed);
    let terminals = data.terminals.len();
    let place = Place::create(&report.path("network"), terminals)?;
    let mut progress = Progress::new(arm.name, u64::from(scale.rounds));
    let ended = place.start(&plan, &initial, terminals, |rounds| {
        progress.update(rounds.len() as u64, None);
    })?;
    progress.finish();
    for number in &ended.failed {
        let name = &data.terminals[*number].name;
        writeln!(
            out,
            "Terminal {name} failed: see {}",
            place.path(&format!("{number}.log")).display()
        )?;
    }
    let file = (0..terminals)
        .filter(|number| !ended.failed.contains(number))
        .map(|number| place.client(number).join("model.safetensors"))
        .next()
        .context("no terminal has a model")?;
    let mut recommender =
        Recommender::new(device, &train::spec(data, scale), data.width(), train::ROWS)?;
    recommender.set_model(&load_model(&file, layout.parameters())?)?;
    let hits = recommender.measure(data, &data.held_out())?;
    let [hit1, hit3, mrr] = [hits.hit1, hits.hit3, hits.mrr].map(|x| 100.0 * x);
    writeln!(
        out,
        "{} rounds of {} by {} processes: hit@1 {hit1:.1} %, hit@3 {hit3:.1} %, MRR {mrr:.1} %.",
        ended.rounds.len(),
        arm.name,
        terminals + 1
    )?;
    writeln!(out, "Report: {}", report.path("").display())?;
    report.json("network.json", &hits)?;
    Ok(())
}
