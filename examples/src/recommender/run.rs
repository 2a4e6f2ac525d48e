//! The demo from end to end.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use tern_engine::{Device, save_model};

use super::arms::ARMS;
use super::data::Data;
use super::device::{Recommender, popularity};
use super::movielens::{self, Ratings};
use super::network;
use super::options::{Options, Scale};
use super::results::{ArmResult, Example, Results};
use super::train;
use crate::report::{Report, Series};
use crate::text::bundled;

/// Products that are offered to the example customer.
const OFFERS: usize = 3;

/// Runs the command; what it finds goes to `out` and to the report folder.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<()> {
    let started = Instant::now();
    let device = options.run.open()?;
    writeln!(out, "Runs on {}.", device.name())?;
    if let Some(folder) = &options.movielens {
        return films(options, folder, &device, out);
    }
    let data = match &options.data {
        Some(path) => Data::load(path)?,
        None => Data::load(&bundled("coil2000.csv.gz")?)?,
    };
    if let Some((role, place)) = options.network.part() {
        return network::take_part(role, &place, &data, &device);
    }
    for (terminal, reason) in &data.refused {
        writeln!(out, "Terminal {terminal} does not take part. {reason}")?;
    }
    for reason in &data.left_out {
        writeln!(out, "A line is left out. {reason}")?;
    }
    let mut scale = options.scale();
    scale.cohort = scale.cohort.min(data.terminals.len() as u32);
    if options.network.network {
        return network::run(options, &scale, &data, &device, out);
    }
    let report = options.run.report("recommender")?;
    let held_out = data.held_out();
    writeln!(
        out,
        "{} terminals, {} samples to train on and {} held out; {}.",
        data.terminals.len(),
        data.terminals.iter().map(|terminal| terminal.training.len()).sum::<usize>(),
        held_out.len(),
        Results::described(&scale)
    )?;

    let mut arms = Vec::new();
    for arm in ARMS {
        let seeds = (0..options.seeds).map(|number| options.seed.wrapping_add(number));
        let runs = seeds.map(|seed| {
            train::run(&arm, &data, &scale, seed, &device)
                .with_context(|| format!("{}, seed {seed}", arm.name))
        });
        arms.push(ArmResult { arm, runs: runs.collect::<Result<_>>()? });
    }
    let (parameters, _) = train::spec(&data, &scale).build()?;
    let results = Results {
        device: device.name(),
        scale: if options.quick { "quick" } else { "full" }.into(),
        terminals: data.terminals.len(),
        refused: data.refused.clone(),
        left_out: data.left_out.clone(),
        training: data.terminals.iter().map(|terminal| terminal.training.len()).sum(),
        held_out: held_out.len(),
        rounds: scale.rounds,
        steps: scale.steps,
        cohort: scale.cohort,
        parameters: parameters.count(),
        popularity: popularity(&data),
        example: example(&device, &data, &scale, &arms, &report)?,
        arms,
        seconds: started.elapsed().as_secs_f64(),
    };
    results.write(&report)?;
    writeln!(out, "\n{}", results.table())?;
    let offers = results.example.offers.iter();
    let offers: Vec<_> = offers
        .map(|(product, offer)| format!("{product} ({:.0} %)", 100.0 * offer.share))
        .collect();
    let owns = results.example.owns.join(", ");
    writeln!(
        out,
        "A held-out customer owns: {owns}.\nTheir device recommends: {}.",
        offers.join(", ")
    )?;
    let folder = report.path("");
    writeln!(out, "Report after {:.0} s: {}", results.seconds, folder.display())?;
    Ok(())
}

/// What a run on MovieLens found out.
#[derive(Serialize)]
struct Films<'a> {
    #[serde(flatten)]
    ratings: &'a Ratings,
    rows: &'a [movielens::Row],
}

/// MovieLens instead.
fn films(options: &Options, folder: &Path, device: &Device, out: &mut dyn Write) -> Result<()> {
    let ratings = Ratings::load(folder)?;
    for (user, reason) in &ratings.refused {
        writeln!(out, "User {user} does not take part. {reason}")?;
    }
    for reason in &ratings.left_out {
        writeln!(out, "A line is left out. {reason}")?;
    }
    if ratings.single > 0 {
        let single = ratings.single;
        writeln!(out, "{single} users with one rating don't take part: none is left to train on.")?;
    }
    writeln!(out, "{} users, {} films.", ratings.users.len(), ratings.films)?;
    let report = options.run.report("recommender")?;
    let rows = movielens::run(&ratings, &options.scale(), options.seed, device)?;
    report.json("movielens.json", &Films { ratings: &ratings, rows: &rows })?;
    let series = rows.iter().map(|row| Series { name: &row.name, points: &row.curve });
    let (title, axes) = ("Held-out ratings: error", ("round", "RMSE, in ratings"));
    report.plot("rmse.svg", title, axes, &series.collect::<Vec<_>>())?;
    writeln!(out, "\n{}\nReport: {}", movielens::table(&rows), report.path("").display())?;
    Ok(())
}

/// 3.6 and 3.7: a device downloads the model of the ternary way and recommends products to a
/// customer whom no training saw.
fn example(
    device: &Device,
    data: &Data,
    scale: &Scale,
    arms: &[ArmResult],
    report: &Report,
) -> Result<Example> {
    let spec = train::spec(data, scale);
    let path = report.path("model.safetensors");
    let model = &arms.get(1).and_then(|arm| arm.runs.first()).context("no run")?.model;
    save_model(&path, &spec.build()?.0, model)?;
    let mut recommender = Recommender::load(device, &spec, &path)?;
    let held_out = data.held_out();
    let owned = |customer: usize| {
        (0..data.products.len()).filter(move |p| data.customers[customer].owns(*p))
    };
    let customers = || held_out.iter().map(|sample| sample.customer);
    let two = customers().find(|customer| owned(*customer).count() == 2);
    let customer = two.or_else(|| customers().next()).context("no customer is held out")?;
    let offers = recommender.recommend(&data.customers[customer], OFFERS)?;
    Ok(Example {
        owns: owned(customer).map(|product| data.products[product].clone()).collect(),
        offers: offers.into_iter().map(|o| (data.products[o.product].clone(), o)).collect(),
    })
}
