//! The demo from end to end.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;

use super::data;
use super::lesson;
use super::network;
use super::options::Options;
use super::results::{Results, SetResult};

/// Runs the command; what it finds goes to `out` and to the report folder.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<()> {
    let started = Instant::now();
    let scale = options.scale();
    let device = options.run.open()?;
    let problems = data::load(options)?;
    if let Some((role, place)) = options.network.part() {
        return network::take_part(role, &place, options, &device, &problems[0]);
    }
    writeln!(out, "Runs on {}.", device.name())?;
    let report = options.run.report("teacher-ensemble")?;
    let mut sets = Vec::new();
    for problem in &problems {
        let (private, public) = (problem.private.labels.len(), problem.public.labels.len());
        let (name, test) = (&problem.name, problem.test.labels.len());
        writeln!(out, "{name}: {private} private samples, {public} public ones, {test} measure.")?;
        for refused in &problem.refused {
            writeln!(out, "{refused}")?;
        }
        let lessons = match options.network.network {
            true => vec![network::run(options, &device, problem, &report, out)?],
            false => {
                let seeds = (0..options.seeds).map(|n| options.seed.wrapping_add(n));
                let folder = report.path("");
                let lesson = |seed| lesson::run(&device, problem, &scale, seed, &folder);
                seeds.map(lesson).collect::<Result<_>>()?
            }
        };
        let (name, delta, refused) = (name.clone(), scale.limit.delta, problem.refused.clone());
        let set = SetResult { name, delta, refused, lessons };
        for lesson in &set.lessons {
            for part in &lesson.left_out {
                writeln!(out, "No teacher for {part}.")?;
            }
        }
        writeln!(out, "\n{}", set.table())?;
        let refusals = set.lessons.first().into_iter().flat_map(|l| &l.students);
        for student in refusals {
            if let Some(refusal) = &student.refusal {
                writeln!(out, "Refused, {}: {refusal}.", student.name)?;
            }
        }
        sets.push(set);
        if options.network.network {
            break;
        }
    }
    let results = Results {
        device: device.name(),
        scale: if options.quick { "quick" } else { "full" }.into(),
        limit: scale.limit,
        seconds: started.elapsed().as_secs_f64(),
        sets,
    };
    results.write(&report)?;
    let folder = report.path("");
    writeln!(out, "Report after {:.0} s: {}", results.seconds, folder.display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::Path;

    /// A table whose class depends on two columns, and a column of who collected the row.
    fn table(folder: &Path) -> String {
        let mut text = "x,y,color,site,class\n".to_owned();
        for i in 0..600u32 {
            let [a, b, c, _] = tern_shaders::kernels::random::pcg4d([i, 1, 2, 3]).map(|n| n % 1000);
            let color = ["red", "blue"][usize::from(c > 500)];
            let class = ["no", "yes"][usize::from(a + b > 1000)];
            text += &format!("{a},{b},{color},site{},{class}\n", i % 6);
        }
        text += "1,1,red,lonely,no\n2,1,red,lonely,no\n";
        let path = folder.join("own.csv");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn shown(folder: &Path, more: &[&str]) -> Result<String> {
        let report = folder.join("report");
        let args = ["teacher-ensemble", "--quick", "--device", "cpu", "--out"];
        let args = args.into_iter().chain([report.to_str().unwrap()]).chain(more.iter().copied());
        let mut out = Vec::new();
        run(&Options::try_parse_from(args)?, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    /// (2.1 to 2.8) The whole demo on a small table of one's own.
    #[test]
    fn a_run_on_ones_own_table_leaves_a_report() {
        let folder = tempfile::tempdir().unwrap();
        let data = table(folder.path());
        let base = ["--data", &data, "--label", "class", "--queries", "60", "--epsilon", "20"];
        let few = [&base[..], &["--teachers", "10", "--seeds", "2"]].concat();
        let text = shown(folder.path(), &few).unwrap();
        for part in ["own.csv: ", "10 teachers of 42 samples", "student, confident", " ± "] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
        let report = folder.path().join("report");
        let json = std::fs::read_to_string(report.join("results.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let lesson = &json["sets"][0]["lessons"][1];
        assert!(lesson["ensemble"].as_f64().unwrap() > 0.8, "{lesson}");
        for student in lesson["students"].as_array().unwrap() {
            assert!(student["epsilon"].as_f64().unwrap() <= 20.0);
            let asked = student["asked"]["queries"].as_u64().unwrap();
            assert!(asked == 60 || student["refusal"].is_string(), "{student}");
        }
        assert!(text.contains("Refused, Laplace: the privacy budget is ε = 20.000"), "{text}");
        assert!(std::fs::read_to_string(report.join("epsilon-1.svg")).unwrap().contains("ε spent"));
        // A budget that allows nothing is a result, too.
        let little = ["--data", &data, "--label", "class", "--teachers", "10", "--epsilon", "0.1"];
        let text = shown(folder.path(), &little).unwrap();
        assert_eq!(text.matches("Refused, ").count(), 3, "{text}");
        assert!(!text.contains("true labels") && text.contains("not private"), "{text}");
        // Who collected only one class has no teacher; the others go on.
        let by = [&base[..], &["--by", "site"]].concat();
        let text = shown(folder.path(), &by).unwrap();
        assert!(text.contains("6 teachers of "), "{text}");
        assert!(
            text.contains("No teacher for lonely (") && text.contains("of one class."),
            "{text}"
        );
        assert!(text.contains("own.csv:602): ") || text.contains("own.csv:603): "), "{text}");
        // Devices with a line that can't be read are left out, or that line if they can't be, too.
        let mut lines = std::fs::read_to_string(&data).unwrap();
        lines += "1,2,red,site3\n7\n";
        std::fs::write(&data, lines).unwrap();
        let text = shown(folder.path(), &by).unwrap();
        let refused = ["site site3 does not take part. ", "A line is left out. "];
        for (who, line) in refused.into_iter().zip(["own.csv:604: 4 values", "own.csv:605: 1 v"]) {
            assert!(text.lines().any(|l| l.starts_with(who) && l.contains(line)), "{text}");
        }
        assert!(text.contains("5 teachers of "), "{text}");
        let json = std::fs::read_to_string(report.join("results.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["sets"][0]["refused"].as_array().unwrap().len(), 2);
        let text = shown(folder.path(), &few).unwrap();
        assert_eq!(text.matches("A line is left out. ").count(), 2, "{text}");
    }

    /// Bad data is named with its file and line.
    #[test]
    fn bad_data_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = |text: Option<&str>, more: &[&str]| {
            let path = folder.path().join("bad.csv");
            let _ = std::fs::remove_file(&path);
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let args = [&["--data", path.to_str().unwrap()], more].concat();
            format!("{:#}", shown(folder.path(), &args).unwrap_err())
        };
        let label = ["--label", "class"];
        let cases = [
            (None, &label[..], "No such file"),
            (Some("a,class\n1,x\n2\n"), &label[..], "left out. FILE:3: 1 values, expected 2"),
            (Some("a,b\n1,x\n"), &label[..], "column is class"),
            (Some("a,class\n1,x\n"), &[][..], "--label has to name"),
            (Some("a,class\n1,x\n"), &label[..], "1 rows are too few"),
        ];
        for (text, more, expected) in cases {
            let error = error(text, more);
            let expected =
                expected.replace("FILE", folder.path().join("bad.csv").to_str().unwrap());
            assert!(error.contains("bad.csv") && error.contains(&expected), "{error}");
        }
        let one = format!("a,class\n{}", "1,x\n".repeat(30));
        assert!(error(Some(&one), &label).contains("one class in class"));
        let folder_error = format!(
            "{:#}",
            shown(folder.path(), &["--data", folder.path().to_str().unwrap()]).unwrap_err()
        );
        assert!(folder_error.contains("no file whose name has train and images"));
    }
}
