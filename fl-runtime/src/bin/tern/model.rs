//! `tern evaluate` and `tern predict`: what a model makes of files.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tern_engine::nn::{Input, ModelSpec, Predictor};
use tern_engine::{Arena, Device, Flat, load_model};
use tern_fl::RunPlan;
use tern_fl::config::{Config, DataConfig};
use tern_fl::data::open_table;
use tern_fl::layout::ModelKind;
use tern_fl::schema::Schema;

use super::samples::Measurer;

/// A model, and files that it is asked of.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Asked {
    /// The configuration of the run, or the plan that `tern simulate --out` left.
    #[arg(long, default_value = "tern.toml")]
    config: PathBuf,
    /// The model: safetensors.
    #[arg(long)]
    model: PathBuf,
    /// Files like a client's: a CSV file or a folder of them, or for models of text `.txt` files.
    data: PathBuf,
}

/// Measures a model by files, as the server and clients of its run do: a metric a line.
#[derive(Args, Debug)]
pub struct Evaluate {
    #[command(flatten)]
    asked: Asked,
    /// The column with the class, where the run has no schema.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Tokens of a window of text.
    #[arg(long, default_value_t = 80)]
    window: usize,
}

/// Says which class a model gives each row of a table, and how sure it is: CSV with the columns
/// `class` and `probability`. The table needs no column with the class.
#[derive(Args, Debug)]
pub struct Predict {
    #[command(flatten)]
    asked: Asked,
}

/// Rows that are predicted at a time.
const BATCH: usize = 256;

impl Asked {
    /// The plan of a configuration, or one alone.
    fn plan(&self) -> Result<RunPlan> {
        let path = &self.config;
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let alone: Option<RunPlan> = toml::from_str(&text).ok();
        match alone {
            Some(plan) => Ok(plan),
            None => {
                let run = Config::load(path)?.run;
                run.with_context(|| format!("{}: no [run]", path.display()))
            }
        }
    }
}

/// The layers of a plan's model.
fn layers(plan: &RunPlan) -> Result<&ModelSpec> {
    match &plan.model {
        ModelKind::Layers(spec) => Ok(spec),
        ModelKind::Tensors(_) => bail!(
            "run.model is tensors, expected layers: only its program \
             knows what to do with them"
        ),
    }
}

/// Prints a metric a line.
pub fn evaluate(options: &Evaluate) -> Result<()> {
    let Evaluate { asked, label, window } = options;
    let plan = asked.plan()?;
    let layout = plan.check()?;
    let (path, label) = (asked.data.clone(), label.clone());
    let data = match layers(&plan)?.input {
        Input::Tokens { .. } => DataConfig::Text { path, tokens: None, steps: *window },
        _ => DataConfig::Csv { path, label },
    };
    let mut measurer = Measurer::new(&Device::from_env()?, &plan, &data)?;
    let model = load_model(&asked.model, layout.parameters())?;
    let (samples, metrics) = measurer.measure(&model)?;
    super::say(format_args!("samples {samples}"));
    for (name, value) in metrics {
        super::say(format_args!("{name} {value:.6}"));
    }
    Ok(())
}

/// Prints a class and its probability for each row.
pub fn predict(options: &Predict) -> Result<()> {
    let Predict { asked } = options;
    let lines = predictions(&asked.plan()?, &asked.model, &asked.data)?;
    super::say(format_args!("{}", lines.trim_end()));
    Ok(())
}

fn predictions(plan: &RunPlan, model: &Path, data: &Path) -> Result<String> {
    let layout = plan.check()?;
    let spec = layers(plan)?;
    let Some(schema) = &plan.schema else {
        bail!("no [run.schema], expected one (tern schema): it says what columns and classes mean")
    };
    let features = open_table(data)?.features_by(schema)?;
    let (parameters, layers) = spec.build()?;
    let arena = Arena::new(&Device::from_env()?, &parameters, &[0])?;
    arena.write(Flat::Parameters, 0, &load_model(model, layout.parameters())?)?;
    let logits = Predictor::new(&arena, &layers, BATCH)?.predict(&features)?;
    let rows = features.len() / schema.width();
    let classes = logits.len() / rows.max(1);
    ensure!(classes == schema.label.classes.len(), "{classes} outputs of the model");
    Ok(table(schema, &logits))
}

/// The most probable class of each row of logits.
fn table(schema: &Schema, logits: &[f32]) -> String {
    let classes = &schema.label.classes;
    let mut lines = String::from("class,probability\n");
    for row in logits.chunks(classes.len()) {
        let (best, largest) =
            row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, x)| {
                if *x > best.1 { (i, *x) } else { best }
            });
        let sum: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
        // Writing to a string doesn't fail.
        let _ = writeln!(lines, "{},{:.6}", quoted(&classes[best]), 1.0 / sum);
    }
    lines
}

/// A value as CSV has it.
fn quoted(value: &str) -> String {
    match value.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_engine::save_model;

    #[test]
    fn rows_get_the_class_and_probability_that_the_model_gives_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let sample = file("sample.csv", "x,class\n-1,\"a, b\"\n1,c\n");
        let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(1, &[], 2)), 1);
        plan.schema = Some(open_table(&sample).unwrap().schema("class", &[], &[0, 1]).unwrap());
        // Logits −x and x.
        let layout = plan.check().unwrap();
        let mut weights = vec![0.0; layout.parameters().words()];
        weights[..2].copy_from_slice(&[-1.0, 1.0]);
        let model = folder.path().join("model.safetensors");
        save_model(&model, layout.parameters(), &weights).unwrap();
        let new = file("new.csv", "id,x\n7,3\n8,-0.5\n9,0\n");
        let lines = predictions(&plan, &model, &new).unwrap();
        let expected = [
            ("c", 1.0 / (1.0 + (-6f64).exp())),
            ("\"a, b\"", 1.0 / (1.0 + (-1f64).exp())),
            ("\"a, b\"", 0.5),
        ];
        let expected: String =
            expected.iter().map(|(class, p)| format!("{class},{p:.6}\n")).collect();
        assert_eq!(lines, format!("class,probability\n{expected}"));
        let error = predictions(&plan, &model, &file("b.csv", "y\n1\n")).unwrap_err().to_string();
        assert!(error.contains("column is x, expected one of y"), "{error}");
        plan.schema = None;
        let error = predictions(&plan, &model, &new).unwrap_err().to_string();
        assert!(error.contains("no [run.schema]"), "{error}");
    }
}
