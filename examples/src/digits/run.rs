//! The demo from end to end.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use tern_fl::methods::align::Settings;

use super::data::{Digits, Transfer};
use super::network;
use super::options::{Options, Scale, model};
use super::results::{Results, TransferResult};
use super::transfer::{Bench, Beside, measure};
use crate::progress::Progress;

/// Runs the command; what it finds goes to `out` and to the report folder.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<()> {
    at_scale(options, &options.scale(), out)
}

fn at_scale(options: &Options, scale: &Scale, out: &mut dyn Write) -> Result<()> {
    let started = Instant::now();
    let device = options.run.open()?;
    writeln!(out, "Runs on {}.", device.name())?;
    let digits = Digits::load(options)?;
    let model = model()?;
    let bench = Bench { device: &device, model: &model };
    let part = options.network.part();
    if part.is_some() || options.network.network {
        let settings = Settings { seed: options.seed, ..scale.settings.clone() };
        let transfers = digits.transfers(scale, options.seed)?;
        let transfer = transfers.first().context("no transfer")?;
        if let Some((role, place)) = part {
            return network::take_part(role, &place, bench, &settings, transfer);
        }
        let report = options.run.report("digits-transfer")?;
        refusals(&digits, out)?;
        return network::run(bench, &settings, transfer, &report, out);
    }
    let report = options.run.report("digits-transfer")?;
    refusals(&digits, out)?;
    let mut transfers: Vec<TransferResult> = Vec::new();
    let seeds = (0..scale.seeds).map(|number| options.seed.wrapping_add(number));
    // Before hours are spent on the first.
    seeds.clone().try_for_each(|seed| digits.transfers(scale, seed).map(drop))?;
    for seed in seeds {
        let settings = Settings { seed, ..scale.settings.clone() };
        let all = digits.transfers(scale, seed)?;
        for (at, transfer) in all.iter().enumerate() {
            let same = |other: &Transfer| {
                (&other.target, &other.test) == (&transfer.target, &transfer.test)
            };
            let earlier = all[..at].iter().position(same).and_then(|at| transfers[at].runs.last());
            let beside = Beside {
                // Once: it takes as long as the target, and comes to the same.
                third: match transfers.as_slice() {
                    [] => Some(fresh(report.path("third-node"))?),
                    _ => None,
                },
                ceiling: earlier.map(|run| run.ceiling),
            };
            let label = format!("{}, seed {seed}", transfer.name);
            let mut progress = Progress::new(&label, beside.rounds(&settings));
            let run = measure(bench, &settings, transfer, &beside, &mut progress)?;
            progress.finish();
            if transfers.len() <= at {
                transfers.push(TransferResult { name: transfer.name.clone(), runs: Vec::new() });
            }
            transfers[at].runs.push(run);
        }
    }
    let results = Results {
        device: device.name(),
        scale: if options.quick { "quick" } else { "full" }.into(),
        exchanges: scale.settings.exchanges,
        parameters: model.parameters().count(),
        seconds: started.elapsed().as_secs_f64(),
        refused: digits.refused,
        transfers,
    };
    results.write(&report, &model)?;
    writeln!(out, "\n{}", results.table())?;
    writeln!(
        out,
        "Accuracy on digits that the target never trained on; only the ceiling knows its labels. \
         {} parameters travel, {} exchanges.",
        results.parameters, results.exchanges
    )?;
    for transfer in &results.transfers {
        let name = &transfer.name;
        match transfer.runs.iter().find_map(|run| run.third_agrees) {
            Some(true) => {
                writeln!(out, "{name}: a third node comes to the same model, bit by bit.")?;
            }
            Some(false) => writeln!(out, "{name}: a third node comes to another model!")?,
            None => (),
        }
    }
    let folder = report.path("");
    writeln!(out, "{:.0} s; pictures and numbers: {}", results.seconds, folder.display())?;
    Ok(())
}

/// A folder without what an earlier run into the same report left there.
fn fresh(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(folder)
}

/// Says who doesn't take part.
fn refusals(digits: &Digits, out: &mut dyn Write) -> Result<()> {
    for (name, reason) in &digits.refused {
        writeln!(out, "Source {name} does not take part. {reason}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::RunOptions;

    #[test]
    fn a_tiny_run_reports_everything() {
        let folder = tempfile::tempdir().unwrap();
        let out = Some(folder.path().join("report"));
        let run = RunOptions { out, device: Some("cpu".into()) };
        let options = Options { run, seed: 3, ..Options::default() };
        let mut scale = Scale { seeds: 2, digits: 300, tested: 200, ..Scale::quick() };
        scale.settings.exchanges = 4;
        scale.settings.warm_ups = 1;
        scale.settings.warm_up_steps = 30;
        scale.settings.head_start = 2;
        let mut text = Vec::new();
        at_scale(&options, &scale, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for part in
            ["optdigits to MNIST", "MNIST to optdigits, 3 sources", "ceiling", "±", "same model"]
        {
            assert!(text.contains(part), "{text}");
        }
        let file = |name: &str| folder.path().join("report").join(name);
        let json = std::fs::read_to_string(file("results.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let runs = json["transfers"][0]["runs"].as_array().unwrap();
        assert_eq!((runs.len(), runs[1]["seed"].as_u64()), (2, Some(4)));
        assert_eq!(runs[0]["curve"].as_array().unwrap().len(), 2);
        for (picture, name) in [
            ("accuracy.svg", "optdigits to MNIST"),
            ("features-1.svg", "optdigits to MNIST"),
            ("features-4.svg", "MNIST to optdigits, 3 sources"),
        ] {
            let svg = std::fs::read_to_string(file(picture)).unwrap();
            assert!(svg.contains(name), "{picture}");
        }
        assert!(file("aligned-4.safetensors").exists());
        // Once a third node ran it, too.
        let third = |run: usize| json["transfers"][0]["runs"][run]["third_agrees"].as_bool();
        assert_eq!([third(0), third(1)], [Some(true), None]);
        assert!(file("third-node/journal.sqlite").exists());
        // A second run into the same folder finds nothing of it.
        let journal = fresh(file("third-node")).unwrap().join("journal.sqlite");
        assert!(!journal.exists() && fresh(file("third-node")).is_ok());
    }
}
