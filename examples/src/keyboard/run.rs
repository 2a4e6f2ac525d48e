//! The demo from end to end.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use tern_engine::Device;
use tern_fl::methods::personalize::Public;

use super::data::Texts;
use super::interactive::{self, Input, terminal};
use super::network;
use super::options::Options;
use super::personalize::personalize;
use super::results::{Results, medians};
use super::steps::{preset, publish, publish_again, take, tell};
use super::study;
use crate::public::PublicModel;
use crate::users::User;

/// Runs the command; what it finds goes to `out` and to the report folder.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<()> {
    let started = Instant::now();
    let scale = options.scale();
    let device = options.run.open()?;
    let texts = Texts::load(options, &scale)?;
    if let Some((role, place)) = options.network.part() {
        return network::take_part(role, &place, options, &device, &texts);
    }
    writeln!(out, "Runs on {}.", device.name())?;
    for (who, reason) in &texts.refused {
        writeln!(out, "{who} does not take part. {reason}")?;
    }
    if options.network.network {
        return network::run(options, &device, &texts, out);
    }
    let report = options.run.report("keyboard")?;

    let own = report.path("you.device");
    let model = options.public_model()?;
    if options.interactive && options.model.is_none() && own.exists() {
        // A device that goes on has a model.
        let public = PublicModel::downloaded(Public::of_device(&own)?);
        let public = Arc::new(public.with_context(|| own.display().to_string())?);
        return type_in(options, &device, &public, &own, out);
    }
    // 1.1 to 1.3: the server.
    let (published, curve, public) = match &model {
        Some(path) => take(path, &device, &texts)?,
        None => publish(options, &scale, &device, &texts, &report)?,
    };
    tell(&public, &published, out)?;
    // 1.4: from here on everything happens on clients, which know the published files only.
    let downloaded = Arc::new(PublicModel::load(&published)?);
    if options.interactive {
        return type_in(options, &device, &downloaded, &own, out);
    }

    let typed = texts.users.iter().flat_map(|user| user.train.iter().chain(&user.held_back));
    let known = downloaded.card.alphabet.check(typed.map(String::as_str));
    known.context("what users type")?;

    let records = preset(options, &scale, &texts.users);
    let newer = || match publish_again(options, &scale, &device, &texts, &downloaded)? {
        Some(newer) => Ok(Some(Arc::new(PublicModel::load(&newer.publish(&report.path(""))?)?))),
        None => Ok(None),
    };
    let users = personalize(&device, &downloaded, &scale, records, &texts.users, newer, &report)?;
    let study_records = scale.study_records.min(records);
    let some = &texts.users[..texts.users.len().min(scale.study_users)];
    let (some, short): (Vec<User>, Vec<User>) = some.iter().cloned().partition(|user| {
        let alphabet = &downloaded.card.alphabet;
        study::has_two_batches(alphabet, user, study_records, &scale.recipe)
    });
    for user in &short {
        writeln!(out, "{} is not in the second table: too little text for it.", user.name)?;
    }
    let study = match some.as_slice() {
        [] => Vec::new(),
        some => study::study(&device, &downloaded, &scale.recipe, study_records, some)?,
    };
    let results = Results {
        device: device.name(),
        scale: if options.quick { "quick" } else { "full" }.into(),
        seed: options.seed,
        records,
        seconds: started.elapsed().as_secs_f64(),
        public,
        refused: texts.refused.clone(),
        medians: medians(&users),
        users,
        study,
    };
    results.write(&report, &curve)?;
    results.tell(out)?;
    if !results.study.is_empty() {
        writeln!(out, "\n{}", study::table(&results.study))?;
    }
    let folder = report.path("");
    writeln!(out, "Report after {:.0} s: {}", results.seconds, folder.display())?;
    Ok(())
}

/// Lets whoever started the run type.
fn type_in(
    options: &Options,
    device: &Device,
    public: &Arc<PublicModel>,
    own: &Path,
    out: &mut dyn Write,
) -> Result<()> {
    let records = options.records.map_or(interactive::RECORDS, |n| n as usize);
    let recipe = interactive::recipe(options.seed);
    let mut lines;
    let input = if terminal::is_there() {
        Input::Keys
    } else {
        lines = std::io::stdin().lock();
        Input::Lines(&mut lines)
    };
    interactive::run(device, public, own, records, recipe, input, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn a_run_on_ones_own_text_leaves_a_report() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("mine.txt");
        let said = |name: &str, what: &str| format!("@{name}\n{}", format!("{what}\n").repeat(120));
        let text = said("ann", "so it goes on and on") + &said("bob", "to be or not to be so");
        std::fs::write(&data, &text).unwrap();
        let report = folder.path().join("report");
        let run = |more: &[&str]| {
            let paths = [data.to_str().unwrap(), report.to_str().unwrap()];
            let args = ["keyboard", "--quick", "--device", "cpu", "--steps", "8"];
            let args = args.into_iter().chain(["--data", paths[0], "--out", paths[1]]);
            let options = Options::parse_from(args.chain(more.iter().copied()));
            let mut out = Vec::new();
            run(&options, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let shown = run(&["--study", "1"]);
        assert!(shown.contains("as typed, exact") && shown.contains("Public model v2"), "{shown}");
        assert!(shown.starts_with("Runs on ") && shown.contains("Median of 1 speakers"), "{shown}");
        for file in ["results.json", "loss.svg", "public-v1.safetensors", "public-v1.json"] {
            assert!(report.join(file).exists(), "{file}");
        }
        let model = report.join("public-v1.safetensors");
        let shown = run(&["--model", model.to_str().unwrap(), "--records", "900", "--study", "0"]);
        assert!(!shown.contains("as typed") && !shown.contains("Public model v2"), "{shown}");
        assert!(shown.contains("Median of 2 speakers"), "everybody is a user now: {shown}");
        assert!(report.join("own/ann-1.safetensors").exists() || shown.contains("0/2"), "{shown}");
        // Who types too little for the second table doesn't stop the run at its end.
        let short = format!("@cy\n{}", "so it goes on again\n".repeat(25));
        std::fs::write(&data, text + &short).unwrap();
        std::fs::remove_file(report.join("results.json")).unwrap();
        let shown = run(&["--records", "20000"]);
        assert!(shown.contains("cy is not in the second table"), "{shown}");
        assert!(shown.contains("Median of 1 speakers") && report.join("results.json").exists());
    }
}
