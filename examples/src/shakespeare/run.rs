//! Rounds, until the model is good enough.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tern_engine::nn::ModelSpec;
use tern_engine::{TextData, TextWindows};
use tern_fl::RunPlan;
use tern_fl::layout::ModelKind;
use tern_fl::plan::{Goal, RateDecay, Updates};
use tern_fl::simulate::{self, Population, Simulation};
use tern_fl::trainer::LocalData;

use super::data::Texts;
use super::options::Options;
use crate::public::{Card, PublicModel};
use crate::report::Series;

/// Characters of a window, which is a line. The paper's has 80; 32 lines of the bundled 87,764
/// that train are longer than this, and are cut in two.
const WINDOW: usize = 64;
/// Length of the character vectors.
const DIMENSION: usize = 8;
/// File of the report that says which model a run that was stopped goes on from.
const RESULTS: &str = "results.json";
/// Rounds to 54 % in table 2 of the paper for E = 5, B = 10, C = 0.1: roles, and dealt out.
const PAPER: [u32; 2] = [41, 192];

/// A round, measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Round {
    round: u32,
    /// Seconds since the first one began.
    seconds: f64,
    /// Mean loss of the clients' local training.
    training_loss: f64,
    /// Of the new model on the test lines.
    loss: f64,
    /// The same: part of the characters that were the most probable one.
    accuracy: f64,
}

/// All of a run.
#[derive(Debug, Serialize, Deserialize)]
struct Results {
    device: String,
    plan: RunPlan,
    clients: usize,
    cohort: u32,
    iid: bool,
    /// Lines to train on, one that is cut counted by its windows, and characters that test.
    lines: usize,
    tested: usize,
    parameters: usize,
    /// Rounds until the target was reached, if it was.
    reached: Option<u32>,
    target: f64,
    /// Rounds of the paper for 54 %.
    paper: u32,
    rounds: Vec<Round>,
}

/// Rounds of an earlier run of the same plan into the same folder.
fn before(path: &Path, now: &Results) -> Result<Vec<Round>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(name)?;
    let before: Results = serde_json::from_str(&text).with_context(name)?;
    // More rounds are the same run.
    let mut plan = before.plan;
    plan.rounds = now.plan.rounds;
    ensure!(
        (plan, before.iid, before.clients, before.lines, before.tested)
            == (now.plan.clone(), now.iid, now.clients, now.lines, now.tested),
        "{}: of a run with other options, expected another --out",
        name()
    );
    Ok(before.rounds)
}

fn spec(options: &Options, tokens: usize) -> ModelSpec {
    ModelSpec::language_model(tokens, DIMENSION, options.hidden as usize, 2)
}

/// The experiment's plan for so many clients and tokens.
pub fn plan(options: &Options, clients: usize, tokens: usize) -> RunPlan {
    let model = ModelKind::Layers(spec(options, tokens));
    let mut plan = RunPlan::new("shakespeare", model, options.rounds);
    plan.seed = options.seed;
    let tenth = clients.div_ceil(10) as u32;
    plan.cohort.size = options.cohort.unwrap_or(tenth).min(clients as u32);
    // As in the paper, clients count by their samples alone.
    plan.updates.max_over_median = Updates::ANY_OVER_MEDIAN;
    plan.training.epochs = options.epochs;
    plan.training.batch = options.batch;
    plan.training.learning_rate = options.learning_rate;
    let (factor, rounds) = (options.decay, options.after.clone());
    plan.training.decay = Some(RateDecay::After { factor, rounds });
    plan.evaluation.metric = "accuracy".into();
    plan.evaluation.goal = Goal::Maximize;
    plan
}

/// Runs the command; rounds go to `out` as they are done, all of it to the report folder.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<()> {
    let device = options.run.open()?;
    writeln!(out, "Runs on {}.", device.name())?;
    let texts = Texts::load(options)?;
    for (who, reason) in &texts.refused {
        writeln!(out, "{who} does not take part. {reason}")?;
    }
    let report = options.run.report("shakespeare")?;
    let tokens = texts.alphabet.tokens();
    let plan = plan(options, texts.clients.len(), tokens);
    let layout = plan.check()?;
    let clients = Population::passages(&device, &texts.clients, tokens, WINDOW)?;
    let held_out = TextData::upload(&device, &texts.test, TextWindows::new(tokens, WINDOW))?;
    let mut results = Results {
        device: device.name(),
        plan: plan.clone(),
        clients: clients.len(),
        cohort: plan.cohort.size,
        iid: options.iid,
        lines: clients.samples(),
        tested: texts.test.iter().map(|tokens| tokens.len().saturating_sub(1)).sum(),
        parameters: layout.parameters().count(),
        reached: None,
        target: options.target,
        paper: PAPER[usize::from(options.iid)],
        rounds: Vec::new(),
    };
    writeln!(
        out,
        "{} clients, {} a round, {} lines; {} parameters; E = {}, B = {}, rate {}, times {} \
         after each of rounds {:?}.",
        results.clients,
        results.cohort,
        results.lines,
        results.parameters,
        options.epochs,
        options.batch,
        options.learning_rate,
        options.decay,
        options.after,
    )?;
    // Each round publishes the next version.
    let publish = |version: u32, weights: Vec<f32>| {
        let (alphabet, characters) =
            (texts.alphabet.clone(), texts.clients.iter().flatten().map(Vec::len).sum());
        let card = Card {
            version,
            spec: spec(options, tokens),
            alphabet,
            characters,
            steps: version as usize,
        };
        PublicModel::new(card, weights)?.publish(&report.path(""))
    };
    let published = |version: u32| report.path(&format!("public-v{version}.safetensors"));
    let mut simulated = simulate::Options::new(&device).held_out(LocalData::Text(held_out));
    results.rounds = before(&report.path(RESULTS), &results)?;
    let last = results.rounds.last().copied();
    if let Some(last) = last {
        simulated.done = last.round;
        simulated.initial = Some(PublicModel::load(&published(last.round))?.weights().to_vec());
        writeln!(out, "Goes on after round {}.", last.round)?;
    }
    let mut simulation = Simulation::new(&plan, clients, simulated)?;
    let (started, earlier) = (Instant::now(), last.map_or(0.0, |last| last.seconds));
    let enough = |round: &Round| 100.0 * round.accuracy >= options.target;
    results.reached = results.rounds.iter().find(|round| enough(round)).map(|round| round.round);
    while results.reached.is_none() {
        let Some(record) = simulation.round()? else { break };
        let metric = |name: &str| record.head.metrics.get(name).copied().unwrap_or(f64::NAN);
        let round = Round {
            round: record.turn.round,
            seconds: earlier + started.elapsed().as_secs_f64(),
            training_loss: record.training.get("loss").copied().unwrap_or(f64::NAN),
            loss: metric("loss"),
            accuracy: metric("accuracy"),
        };
        writeln!(
            out,
            "round {:>4}  {:>7.0} s  training loss {:.3}  test loss {:.3}  test accuracy {:.2} %",
            round.round,
            round.seconds,
            round.training_loss,
            round.loss,
            100.0 * round.accuracy,
        )?;
        results.rounds.push(round);
        // A run that is stopped at any time has its curve, and goes on from the model of its end.
        publish(round.round, simulation.model()?)?;
        report.json(RESULTS, &results)?;
        PublicModel::remove(&published(round.round - 1))?;
        results.reached = enough(&round).then_some(round.round);
    }
    report.json(RESULTS, &results)?;
    let curve: Vec<(f64, f64)> =
        results.rounds.iter().map(|r| (f64::from(r.round), 100.0 * r.accuracy)).collect();
    let series = [Series { name: "test accuracy", points: &curve }];
    report.plot("accuracy.svg", "Shakespeare: characters expected", ("round", "%"), &series)?;
    let (target, paper) = (options.target, results.paper);
    match results.reached {
        Some(round) => {
            writeln!(out, "{target} % after {round} rounds; the paper: {paper} for 54 %.")?
        }
        None => {
            let done = results.rounds.len();
            writeln!(out, "Not {target} % after {done} rounds; the paper: {paper} for 54 %.")?;
        }
    }
    writeln!(out, "Report: {}", report.path("").display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_plan_is_the_papers() {
        let plan = plan(&Options::parse_from(["shakespeare"]), 1146, 90);
        assert_eq!((plan.cohort.size, plan.training.epochs, plan.training.batch), (115, 5, 10));
        // The rate that the paper's figure 3 keeps.
        assert_eq!((plan.training.learning_rate, plan.training.scale(26)), (1.47, 1.0));
        // The paper counts 866,578; its alphabet is not given.
        assert_eq!(plan.check().unwrap().parameters().count(), 822_570);
    }

    #[test]
    fn rounds_go_on_until_the_target() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("mine.txt");
        let role = |i: usize| format!("@play/{i}\n{}", "so it goes and goes\n".repeat(60));
        std::fs::write(&data, (0..6).map(role).collect::<String>()).unwrap();
        let report = folder.path().join("report");
        let run = |more: &[&str]| {
            let args = ["shakespeare", "--device", "cpu", "--hidden", "16", "--cohort", "3"];
            let paths = [data.to_str().unwrap(), report.to_str().unwrap()];
            let args = args.into_iter().chain(["--data", paths[0], "--out", paths[1]]);
            let options = Options::parse_from(args.chain(more.iter().copied()));
            let mut out = Vec::new();
            run(&options, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let shown = run(&["--rounds", "40", "--target", "40"]);
        assert!(shown.contains("6 clients, 3 a round") && shown.contains("40 % after "), "{shown}");
        for file in [RESULTS, "accuracy.svg"] {
            assert!(report.join(file).exists(), "{file}");
        }
        let models = std::fs::read_dir(&report).unwrap().filter_map(|entry| {
            entry.unwrap().path().extension().is_some_and(|e| e == "safetensors").then_some(())
        });
        assert_eq!(models.count(), 1, "the last round's");
        std::fs::remove_dir_all(&report).unwrap();
        let shown = run(&["--rounds", "2", "--target", "99", "--iid"]);
        assert!(shown.contains("Not 99 % after 2 rounds; the paper: 192"), "{shown}");
        // A run into the same folder goes on, if it is the same.
        let shown = run(&["--rounds", "3", "--target", "99", "--iid"]);
        assert!(shown.contains("after round 2") && !shown.contains("round    2"), "{shown}");
        assert!(shown.contains("round    3") && shown.contains("after 3 rounds"), "{shown}");
        let args = ["shakespeare", "--device", "cpu", "--rounds", "3", "--hidden", "8", "--data"];
        let args = args.into_iter().chain([data.to_str().unwrap(), "--out"]);
        let other = Options::parse_from(args.chain([report.to_str().unwrap()]));
        let error = super::run(&other, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("results.json") && error.contains("another --out"), "{error}");
    }
}
