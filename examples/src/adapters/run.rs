//! The demo from end to end.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use tern_engine::{Device, Optimizer, Parameters};
use tern_fl::RunPlan;
use tern_fl::server::local::{self, Client};

use super::base::{Base, adapters, count, smollm2_parameters};
use super::options::Options;
use super::train::{Bench, Speaker, Texts, train_weights};
use super::ways::Way;
use crate::report::{Report, Series, Table};
use crate::text::{bundled, load};
use crate::users::{User, users};

/// Characters that a client's lines have at least.
const LEAST: usize = 2000;

/// A round, measured.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    round: u32,
    /// Mean loss of the clients' local training.
    training_loss: f64,
    /// Of the model with the round's adapters on the lines that are held back.
    loss: f64,
    /// Bytes of all clients' updates.
    uploaded: u64,
    /// Bytes of the adapters that they were sent.
    downloaded: u64,
    /// Bytes of their other messages: keys, shares and signatures.
    messages: u64,
}

/// What a way to send adapters came to.
#[derive(Debug, Serialize)]
struct Outcome {
    way: String,
    /// Bytes of an update.
    bytes: u64,
    /// As many are the model's weights in 16 bits.
    of_model: f64,
    /// The same with a model of SmolLM2-135M's shape.
    smollm2_bytes: u64,
    of_smollm2: f64,
    rounds: Vec<Round>,
}

/// All of a run.
#[derive(Debug, Serialize)]
struct Results {
    device: String,
    clients: Vec<String>,
    parameters: usize,
    adapters: usize,
    rank: u32,
    /// Loss of the model without adapters on the lines that are held back.
    before: f64,
    ways: Vec<Outcome>,
    seconds: f64,
}

/// The plan of all ways: adapters in full precision.
fn plan(options: &Options, base: &Base, clients: usize) -> RunPlan {
    let mut plan = RunPlan::new("adapters", adapters(&base.parameters).0, options.rounds);
    plan.seed = options.seed;
    (plan.cohort.size, plan.cohort.minimum) = (clients as u32, clients as u32);
    plan.training.steps = Some(options.steps);
    plan.training.batch = options.batch;
    plan.training.optimizer = Optimizer::adamw();
    plan.training.learning_rate = options.learning_rate;
    plan.training.clip_gradient = Some(1.0);
    plan
}

/// The first speakers with text enough.
fn speakers(options: &Options) -> Result<Vec<User>> {
    let path = match &options.data {
        Some(path) => path.clone(),
        None => bundled("addresses.txt.gz")?,
    };
    let mut users = users(&load(&[&path])?, LEAST);
    ensure!(
        users.len() >= 3,
        "{}: {} speakers with two lines and {LEAST} characters, expected three",
        path.display(),
        users.len()
    );
    users.truncate(options.speakers as usize);
    Ok(users)
}

/// The model to adapt.
fn base(options: &Options, users: &[User], device: &Device, out: &mut dyn Write) -> Result<Base> {
    let (rank, seed) = (options.rank as usize, options.seed);
    if let Some(folder) = &options.model {
        return Base::load(folder, rank, seed);
    }
    if options.smollm2 {
        return Base::smollm2(rank, seed);
    }
    let roles = load(&[&bundled("shakespeare-roles.txt.gz")?])?;
    let plays = roles.iter().map(|role| role.lines.join("\n")).collect::<Vec<_>>().join("\n");
    let lines = users.iter().flat_map(|user| user.train.iter().chain(&user.held_back));
    let mut base = Base::small(lines.map(String::as_str).chain([plays.as_str()]), rank, seed)?;
    let (text, steps) = (base.tokenizer.encode(&plays)?, options.plays as usize);
    let window = options.window as usize;
    let loss = train_weights(device, &mut base, &text, window, steps, seed)?;
    writeln!(out, "{steps} steps of all weights on plays: loss {loss:.3}.")?;
    Ok(base)
}

/// Bytes of a client's update by this way, and of a model of SmolLM2-135M's shape.
fn sizes(way: Way, plan: &RunPlan, smollm2: &Parameters) -> Result<[u64; 2]> {
    let mut large = plan.clone();
    large.model = adapters(smollm2).0;
    Ok([Way::bytes(&way.of(plan))?, Way::bytes(&way.of(&large))?])
}

/// How many times as many bytes a model's weights take in 16 bits, adapters not counted.
fn times(parameters: &Parameters, bytes: u64) -> f64 {
    2.0 * count(parameters, false) as f64 / bytes as f64
}

/// Runs the command; rounds go to `out` as they are done, all of it to the report folder.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<()> {
    let started = Instant::now();
    let device = options.run.open()?;
    writeln!(out, "Runs on {}.", device.name())?;
    let users = speakers(options)?;
    let base = base(options, &users, &device, out)?;
    let report = options.run.report("adapters")?;
    let encode = |lines: &[String]| base.tokenizer.encode(&(lines.join("\n") + "\n"));
    let texts = Texts {
        train: users.iter().map(|user| encode(&user.train)).collect::<Result<_>>()?,
        held_back: users.iter().map(|user| encode(&user.held_back)).collect::<Result<_>>()?,
    };
    let plan = plan(options, &base, users.len());
    let (first, window) = (adapters(&base.parameters).1, options.window as usize);
    let (bench, parts) = Bench::new(&device, &base, &texts, window, &plan.training, options.seed)?;
    let bench = Rc::new(RefCell::new(bench));
    let initial = &base.weights[first..];
    let mut results = Results {
        device: device.name(),
        clients: users.iter().map(|user| user.name.clone()).collect(),
        parameters: count(&base.parameters, false),
        adapters: count(&base.parameters, true),
        rank: options.rank,
        before: bench.borrow_mut().measure(initial)?,
        ways: Vec::new(),
        seconds: 0.0,
    };
    writeln!(
        out,
        "{} clients, {} windows of {window} tokens; {} parameters, and {} of adapters of rank {}; \
         loss of held-back lines {:.3}.",
        users.len(),
        parts.iter().map(|part| part.len()).sum::<usize>(),
        results.parameters,
        results.adapters,
        options.rank,
        results.before,
    )?;
    let smollm2 = smollm2_parameters(options.rank as usize)?;
    let ways = match options.only[..] {
        [] => Way::value_variants().to_vec(),
        _ => options.only.clone(),
    };
    for way in ways {
        let mut clients = Vec::new();
        for (number, windows) in parts.iter().enumerate() {
            clients.push(Client::numbered(number, Speaker::new(&bench, windows.clone())));
        }
        let rounds = rounds(way, &plan, initial, &mut clients, &bench, &device, out)
            .with_context(|| way.name())?;
        let [bytes, smollm2_bytes] = sizes(way, &plan, &smollm2)?;
        results.ways.push(Outcome {
            way: way.name().into(),
            bytes,
            of_model: times(&base.parameters, bytes),
            smollm2_bytes,
            of_smollm2: times(&smollm2, smollm2_bytes),
            rounds,
        });
    }
    results.seconds = started.elapsed().as_secs_f64();
    results.write(&report)?;
    writeln!(out, "\n{}", results.table())?;
    let folder = report.path("");
    writeln!(out, "Report after {:.0} s: {}", results.seconds, folder.display())?;
    Ok(())
}

/// The rounds of a way.
fn rounds(
    way: Way,
    plan: &RunPlan,
    initial: &[f32],
    clients: &mut [Client<Speaker>],
    bench: &RefCell<Bench>,
    device: &Device,
    out: &mut dyn Write,
) -> Result<Vec<Round>> {
    let folder = tempfile::tempdir()?;
    let (mut rounds, mut failed) = (Vec::new(), None);
    let options = local::Options::new(device, folder.path());
    local::run(&way.of(plan), Some(initial), clients, options, |round, model| {
        let mut done = || {
            let traffic = round.traffic;
            let round = Round {
                round: round.committed.round,
                training_loss: round.committed.training.get("loss").copied().unwrap_or(f64::NAN),
                loss: bench.borrow_mut().measure(model)?,
                uploaded: traffic.uploaded,
                downloaded: traffic.downloaded,
                messages: traffic.messages_up,
            };
            writeln!(
                out,
                "{}, round {:>3}: training loss {:.3}, loss of held-back lines {:.3}, {} bytes up, \
                 {} down",
                way.name(),
                round.round,
                round.training_loss,
                round.loss,
                round.uploaded,
                round.downloaded,
            )?;
            rounds.push(round);
            Ok::<_, anyhow::Error>(())
        };
        failed = failed.take().or_else(|| done().err());
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(rounds),
    }
}

impl Results {
    fn table(&self) -> Table {
        let headings = [
            "adapters",
            "loss",
            "an update, bytes",
            "of the model's",
            "of SmolLM2-135M",
            "of its",
            "protocol kB",
        ];
        let mut table = Table::new(headings);
        table.row(["none".into(), format!("{:.3}", self.before)]);
        for outcome in &self.ways {
            let last = outcome.rounds.last();
            let messages = last.map_or(0, |round| round.messages) / self.clients.len() as u64;
            table.row([
                outcome.way.clone(),
                last.map_or_else(String::new, |round| format!("{:.3}", round.loss)),
                outcome.bytes.to_string(),
                format!("1/{:.0}", outcome.of_model),
                outcome.smollm2_bytes.to_string(),
                format!("1/{:.0}", outcome.of_smollm2),
                format!("{:.1}", messages as f64 / 1000.0),
            ]);
        }
        table
    }

    fn write(&self, report: &Report) -> Result<()> {
        report.json("results.json", self)?;
        let curves: Vec<Vec<(f64, f64)>> = self
            .ways
            .iter()
            .map(|outcome| {
                let rounds = outcome.rounds.iter().map(|r| (f64::from(r.round), r.loss));
                [(0.0, self.before)].into_iter().chain(rounds).collect()
            })
            .collect();
        let series: Vec<_> = self
            .ways
            .iter()
            .zip(&curves)
            .map(|(outcome, points)| Series { name: &outcome.way, points })
            .collect();
        let (title, axes) = ("Adapters: held-back lines", ("round", "cross-entropy"));
        report.plot("loss.svg", title, axes, &series)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use tern_engine::nn::ModelSpec;
    use tern_engine::save_model;

    use super::*;

    fn shown(folder: &Path, more: &[&str]) -> Result<String> {
        let report = folder.join("report");
        let args = ["adapters", "--device", "cpu", "--speakers", "3", "--out"];
        let args = args.into_iter().chain([report.to_str().unwrap()]).chain(more.iter().copied());
        let mut out = Vec::new();
        run(&Options::try_parse_from(args)?, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn adapters_learn_whichever_way_they_travel() {
        let folder = tempfile::tempdir().unwrap();
        let small = ["--window", "32", "--plays", "60", "--rounds", "3", "--steps", "4"];
        let text = shown(folder.path(), &small).unwrap();
        assert!(text.contains("3 clients") && text.contains("ternary + secure"), "{text}");
        let json = std::fs::read_to_string(folder.path().join("report/results.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let before = json["before"].as_f64().unwrap();
        let ways = json["ways"].as_array().unwrap();
        assert_eq!(ways.len(), 5);
        for way in ways {
            let rounds = way["rounds"].as_array().unwrap();
            assert_eq!(rounds.len(), 3);
            let last = &rounds[2];
            assert!(last["loss"].as_f64().unwrap() < before - 0.02, "{before}, {way}");
            assert_eq!(last["uploaded"].as_u64(), way["bytes"].as_u64().map(|n| 3 * n), "{way}");
        }
        // Of SmolLM2-135M's shape, in 16 bits and ternary.
        let of = |at: usize| ways[at]["of_smollm2"].as_f64().unwrap();
        assert!(of(1) > 200.0 && of(2) > 2000.0 && of(4) > 1000.0, "{text}");
        assert!(folder.path().join("report/loss.svg").exists());
    }

    #[test]
    fn a_published_model_is_adapted() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        let config = r#"{"model_type":"llama","vocab_size":512,"hidden_size":16,
            "intermediate_size":24,"num_hidden_layers":1,"num_attention_heads":2}"#;
        std::fs::write(model.join("config.json"), config).unwrap();
        let (parameters, _) = ModelSpec::llama(config).unwrap().build().unwrap();
        let weights = parameters.initial(3);
        save_model(&model.join("model.safetensors"), &parameters, &weights).unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer.json");
        std::fs::copy(fixture, model.join("tokenizer.json")).unwrap();
        let args = ["--rounds", "1", "--steps", "1", "--only", "half", "--window", "16", "--model"];
        let text = shown(folder.path(), &[&args[..], &[model.to_str().unwrap()]].concat()).unwrap();
        assert!(text.contains(&format!("{} parameters", parameters.count())), "{text}");

        // A model of another vocabulary is refused.
        std::fs::write(model.join("config.json"), config.replace("512", "64")).unwrap();
        let error = shown(folder.path(), &["--model", model.to_str().unwrap()]).unwrap_err();
        assert!(format!("{error:#}").contains("expected at most the 64"), "{error:#}");
    }
}
