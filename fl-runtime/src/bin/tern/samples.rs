//! What clients train on and models are measured by: files of a configuration, on a device.

use std::path::Path;

use anyhow::{Context, Result};
use tern_engine::{Device, RowData, TextData, TextWindows};
use tern_fl::config::{DataConfig, EvaluationConfig};
use tern_fl::data::{Rows, read_rows, read_texts};
use tern_fl::trainer::{EngineTrainer, LocalData};

use crate::held_out::{hold_out_ends, hold_out_rows};

/// What files hold.
enum Samples {
    Rows(Rows),
    Texts { texts: Vec<Vec<u32>>, windows: TextWindows },
}

/// All samples of a configuration.
pub fn all(device: &Device, data: &DataConfig) -> Result<LocalData> {
    Samples::read(data, data.path())?.upload(device)
}

/// A client that trains on some samples and measures by others, as far as it does either.
pub fn trainer(
    device: &Device,
    data: &DataConfig,
    evaluation: &EvaluationConfig,
) -> Result<EngineTrainer> {
    let mut training = Samples::read(data, data.path())?;
    let evaluation = match evaluation {
        EvaluationConfig::Only => {
            return Ok(EngineTrainer::for_evaluation(device, training.upload(device)?));
        }
        EvaluationConfig::HeldOut(0.0) => None,
        EvaluationConfig::HeldOut(share) => {
            Some(training.hold_out(*share).context("client.evaluation.held_out")?)
        }
        EvaluationConfig::Path(path) => Some(Samples::read(data, path)?),
    };
    let training = training.upload(device)?;
    Ok(match evaluation {
        Some(samples) => EngineTrainer::with_evaluation(device, training, samples.upload(device)?),
        None => EngineTrainer::for_training(device, training),
    })
}

impl Samples {
    fn read(data: &DataConfig, path: &Path) -> Result<Self> {
        Ok(match data {
            DataConfig::Text { tokens, steps, .. } => Samples::Texts {
                texts: read_texts(path, tokens)?,
                windows: TextWindows::new(tokens.vocabulary(), *steps),
            },
            DataConfig::Csv { label, .. } => Samples::Rows(read_rows(path, label)?),
        })
    }

    /// Takes a share away: some of the rows, the ends of the texts.
    fn hold_out(&mut self, share: f64) -> Result<Self> {
        Ok(match self {
            Samples::Rows(rows) => {
                let mut parts = [(0..rows.labels.len()).collect()];
                // The same ones whenever the client is started.
                let held_out = hold_out_rows(share, &mut parts, 0)?;
                let chosen = Samples::Rows(rows.chosen(&held_out));
                *rows = rows.chosen(&parts[0]);
                chosen
            }
            Samples::Texts { texts, windows } => {
                Samples::Texts { texts: hold_out_ends(share, texts)?, windows: *windows }
            }
        })
    }

    fn upload(&self, device: &Device) -> Result<LocalData> {
        Ok(match self {
            Samples::Rows(Rows { features, width, labels, .. }) => {
                // The model's classes are checked when the task is there.
                let classes = labels.iter().max().map_or(1, |most| *most as usize + 1);
                LocalData::Rows(RowData::upload(device, features, *width, labels, classes)?)
            }
            Samples::Texts { texts, windows } => {
                LocalData::Text(TextData::upload(device, texts, *windows)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_engine::nn::ModelSpec;
    use tern_fl::layout::ModelKind;
    use tern_fl::trainer::Trainer;
    use tern_fl::{RunId, RunPlan};

    fn rows(path: &Path, count: usize) -> DataConfig {
        let lines: String = (0..count).map(|i| format!("{i},{}\n", i % 2)).collect();
        std::fs::write(path, format!("x,class\n{lines}")).unwrap();
        DataConfig::Csv { path: path.into(), label: "class".into() }
    }

    #[test]
    fn models_are_measured_by_what_nobody_trains_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let data = rows(&path, 40);
        let mut samples = Samples::read(&data, &path).unwrap();
        let Samples::Rows(held_out) = samples.hold_out(0.1).unwrap() else { panic!() };
        let Samples::Rows(kept) = samples else { panic!() };
        let mut all = [kept.features.clone(), held_out.features.clone()].concat();
        all.sort_by(f32::total_cmp);
        assert_eq!((kept.labels.len(), held_out.labels.len()), (36, 4));
        assert_eq!(all, (0..40).map(|i| i as f32).collect::<Vec<_>>());
        assert!(kept.features.iter().zip(&kept.labels).all(|(x, y)| *x as u32 % 2 == *y));

        let device = Device::cpu();
        let model = ModelKind::Layers(ModelSpec::mlp(1, &[], 2));
        let plan = RunPlan::new("test", model, 1);
        let initial = plan.check().unwrap().parameters().initial(1);
        let task = plan.task(RunId([0; 16])).unwrap();
        let sizes = |evaluation: &EvaluationConfig| {
            let mut trainer = trainer(&device, &data, evaluation).unwrap();
            let evaluated = trainer.evaluate(&task, &initial).ok();
            (trainer.samples(), evaluated.map(|(samples, _)| samples))
        };
        assert_eq!(sizes(&EvaluationConfig::default()), (36, Some(4)));
        assert_eq!(sizes(&EvaluationConfig::HeldOut(0.0)), (40, None));
        assert_eq!(sizes(&EvaluationConfig::Only), (0, Some(40)));
        let own = folder.path().join("own.csv");
        rows(&own, 7);
        assert_eq!(sizes(&EvaluationConfig::Path(own)), (40, Some(7)));

        let one = rows(&path, 1);
        let error = trainer(&device, &one, &EvaluationConfig::default()).err().unwrap();
        let error = format!("{error:#}");
        assert!(error.contains("client.evaluation.held_out: 0.1 of 1 rows"), "{error}");
    }

    #[test]
    fn texts_are_measured_by_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "a".repeat(90) + &"b".repeat(10)).unwrap();
        let data = DataConfig::Text { path: path.clone(), tokens: Default::default(), steps: 8 };
        let mut samples = Samples::read(&data, &path).unwrap();
        let Samples::Texts { texts, .. } = samples.hold_out(0.1).unwrap() else { panic!() };
        let Samples::Texts { texts: kept, .. } = samples else { panic!() };
        assert_eq!((texts, kept), (vec![vec![68; 10]], vec![vec![67; 90]]));
    }
}
