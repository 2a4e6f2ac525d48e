//! What clients train on and models are measured by: files of a configuration, on a device.

use std::path::Path;

use anyhow::{Context, Result, bail};
use tern_engine::{Device, Interrupt, RowData, TextData, TextWindows};
use tern_fl::config::{DataConfig, EvaluationConfig};
use tern_fl::data::{Rows, open_table, read_texts};
use tern_fl::metrics::Metrics;
use tern_fl::schema::Schema;
use tern_fl::tokens::Tokens;
use tern_fl::trainer::{EngineTrainer, Job, LocalData, Trained, Trainer};
use tern_fl::{Error, RunId, RunPlan, TaskSpec};

use crate::held_out::{hold_out_ends, hold_out_rows};

/// What files hold.
enum Samples {
    Rows(Rows),
    Texts { texts: Vec<Vec<u32>>, windows: TextWindows },
}

/// What a run says of how files are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    schema: Option<Schema>,
    tokens: Option<Tokens>,
}

impl Reading {
    /// A task's.
    pub fn of(task: &TaskSpec) -> Self {
        Reading { schema: task.schema.clone(), tokens: task.tokens.clone() }
    }
}

/// Measures the models of a run by samples that nothing is trained on.
pub struct Measurer {
    trainer: EngineTrainer,
    task: TaskSpec,
}

impl Measurer {
    /// By all samples of a configuration, on a device.
    pub fn new(device: &Device, plan: &RunPlan, data: &DataConfig) -> Result<Self> {
        // The run's name changes nothing about what is measured.
        let task = plan.task(RunId([0; 16]))?;
        let samples = Samples::read(data, data.path(), &Reading::of(&task))?.upload(device)?;
        Ok(Measurer { trainer: EngineTrainer::for_evaluation(device, samples), task })
    }

    /// Samples and metrics of a model, a flat vector.
    pub fn measure(&mut self, model: &[f32]) -> tern_fl::Result<(u32, Metrics)> {
        self.trainer.evaluate(&self.task, model)
    }
}

/// Trains and evaluates on files of a configuration, which are read again if a server comes with
/// a run that says otherwise how.
pub struct FileTrainer {
    device: Device,
    data: DataConfig,
    evaluation: EvaluationConfig,
    reading: Reading,
    trainer: EngineTrainer,
    interrupt: Interrupt,
}

impl FileTrainer {
    /// As a run says.
    pub fn new(
        device: &Device,
        data: &DataConfig,
        evaluation: &EvaluationConfig,
        reading: Reading,
    ) -> Result<Self> {
        let interrupt = Interrupt::new();
        let trainer =
            trainer(device, data, evaluation, &reading)?.with_interrupt(interrupt.clone());
        let (device, data, evaluation) = (device.clone(), data.clone(), evaluation.clone());
        Ok(FileTrainer { device, data, evaluation, reading, trainer, interrupt })
    }

    fn of(&mut self, task: &TaskSpec) -> tern_fl::Result<&mut EngineTrainer> {
        let reading = Reading::of(task);
        if reading != self.reading {
            let trainer = trainer(&self.device, &self.data, &self.evaluation, &reading)
                .map_err(|error| Error::trainer(format!("{error:#}")))?;
            // Who asked for the interrupt has it from the first trainer.
            self.trainer = trainer.with_interrupt(self.interrupt.clone());
            self.reading = reading;
        }
        Ok(&mut self.trainer)
    }
}

impl Trainer for FileTrainer {
    fn samples(&self) -> u32 {
        self.trainer.samples()
    }

    fn train(&mut self, task: &TaskSpec, job: &Job) -> tern_fl::Result<Trained> {
        self.of(task)?.train(task, job)
    }

    fn evaluate(&mut self, task: &TaskSpec, model: &[f32]) -> tern_fl::Result<(u32, Metrics)> {
        self.of(task)?.evaluate(task, model)
    }

    fn interrupt(&self) -> Option<Interrupt> {
        Some(self.interrupt.clone())
    }
}

/// Trains on some samples and measures by others, as far as a client does either.
fn trainer(
    device: &Device,
    data: &DataConfig,
    evaluation: &EvaluationConfig,
    reading: &Reading,
) -> Result<EngineTrainer> {
    let mut training = Samples::read(data, data.path(), reading)?;
    let evaluation = match evaluation {
        EvaluationConfig::Only => {
            return Ok(EngineTrainer::for_evaluation(device, training.upload(device)?));
        }
        EvaluationConfig::HeldOut(0.0) => None,
        EvaluationConfig::HeldOut(share) => {
            Some(training.hold_out(*share).context("client.evaluation.held_out")?)
        }
        EvaluationConfig::Path(path) => Some(Samples::read(data, path, reading)?),
    };
    let training = training.upload(device)?;
    Ok(match evaluation {
        Some(samples) => EngineTrainer::with_evaluation(device, training, samples.upload(device)?),
        None => EngineTrainer::for_training(device, training),
    })
}

impl Samples {
    fn read(data: &DataConfig, path: &Path, reading: &Reading) -> Result<Self> {
        Ok(match (data, &reading.schema) {
            (DataConfig::Text { tokens, steps, .. }, None) => {
                let tokens = match (tokens, &reading.tokens) {
                    (Some(own), Some(run)) if own != run => {
                        bail!("tokens are others than the run's, expected none or the same")
                    }
                    (own, run) => run.clone().or(own.clone()).unwrap_or_default(),
                };
                Samples::Texts {
                    texts: read_texts(path, &tokens)?,
                    windows: TextWindows::new(tokens.vocabulary(), *steps),
                }
            }
            (DataConfig::Text { .. }, Some(_)) => {
                bail!("{}: text, expected tables: the run has a schema", path.display())
            }
            (DataConfig::Csv { label, .. }, Some(schema)) => {
                let said = &schema.label.name;
                if let Some(label) = label.as_ref().filter(|label| *label != said) {
                    bail!("label is {label}, expected {said}, as the run's schema says");
                }
                Samples::Rows(open_table(path)?.read_all_by(schema)?)
            }
            (DataConfig::Csv { .. }, None) if reading.tokens.is_some() => {
                bail!("{}: tables, expected text: the run has tokens", path.display())
            }
            (DataConfig::Csv { label: Some(label), .. }, None) => {
                Samples::Rows(open_table(path)?.plain(label)?)
            }
            (DataConfig::Csv { label: None, .. }, None) => {
                bail!("no label, expected the column with the class: the run has no schema")
            }
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
            Samples::Rows(Rows { features, width, labels, classes }) => {
                // Without a schema the model's classes are checked when the task is there.
                let most = labels.iter().max().map_or(1, |most| *most as usize + 1);
                let classes = most.max(classes.len());
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
    use tern_fl::tokens::Alphabet;

    fn rows(path: &Path, count: usize) -> DataConfig {
        let lines: String = (0..count).map(|i| format!("{i},{}\n", i % 2)).collect();
        std::fs::write(path, format!("x,class\n{lines}")).unwrap();
        DataConfig::Csv { path: path.into(), label: Some("class".into()) }
    }

    #[test]
    fn models_are_measured_by_what_nobody_trains_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let data = rows(&path, 40);
        let mut samples = Samples::read(&data, &path, &Reading::default()).unwrap();
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
            let mut trainer = trainer(&device, &data, evaluation, &Reading::default()).unwrap();
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
        let error = trainer(&device, &one, &EvaluationConfig::default(), &Reading::default())
            .err()
            .unwrap();
        let error = format!("{error:#}");
        assert!(error.contains("client.evaluation.held_out: 0.1 of 1 rows"), "{error}");
    }

    #[test]
    fn tables_are_read_by_the_schema_of_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let csv = |name: &str, text: &str, label: Option<&str>| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            DataConfig::Csv { path, label: label.map(String::from) }
        };
        let sample = csv("a.csv", "age,job,class\n1,baker,no\n3,smith,yes\n", None);
        let table = open_table(sample.path()).unwrap();
        let schema = table.schema("class", &[], &[0, 1]).unwrap();
        let reading = Reading { schema: Some(schema), ..Reading::default() };
        let read = |data: &DataConfig| Samples::read(data, data.path(), &reading);
        let rows = |data: &DataConfig| match read(data).unwrap() {
            Samples::Rows(rows) => (rows.features, rows.labels),
            Samples::Texts { .. } => unreachable!(),
        };
        // Another order of columns, and one more.
        let other = csv("b.csv", "id,class,job,age\n7,no,baker,1\n8,yes,smith,3\n", Some("class"));
        assert_eq!(rows(&other), rows(&sample));
        assert_eq!(rows(&sample).0, [-1.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        for (text, label, expected) in [
            ("age,class\n1,no\n", None, "column is job, expected one of age, class"),
            ("age,job,class\n1,baker,maybe\n", None, "line 2: class is `maybe`, expected one of"),
            ("age,job,class\nold,baker,no\n", None, "line 2: age is `old`, expected a number"),
            ("age,job,class\n1,baker,no\n", Some("job"), "label is job, expected class"),
        ] {
            let error = read(&csv("c.csv", text, label)).err().unwrap();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
        let error =
            Samples::read(&sample, sample.path(), &Reading::default()).err().unwrap().to_string();
        assert!(error.contains("no label"), "{error}");
    }

    #[test]
    fn a_server_that_comes_with_another_schema_has_the_files_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let data = rows(&path, 40);
        let device = Device::cpu();
        let task = |schema: Option<Schema>| {
            let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(1, &[], 2)), 1);
            plan.schema = schema;
            plan.task(RunId([0; 16])).unwrap()
        };
        let evaluated = |trainer: &mut FileTrainer, task: &TaskSpec| {
            // The logit of one class is the feature.
            let mut model = vec![0.0; 128];
            model[0] = 1.0;
            trainer.evaluate(task, &model).unwrap().1["loss"]
        };
        let schema = open_table(&path).unwrap().schema("class", &[], &[0, 1, 2, 3]).unwrap();
        let [plain, scaled] = [None, Some(schema)].map(task);
        let new = |task: &TaskSpec| {
            let evaluation = EvaluationConfig::default();
            FileTrainer::new(&device, &data, &evaluation, Reading::of(task)).unwrap()
        };
        let mut trainer = new(&plain);
        let before = evaluated(&mut trainer, &plain);
        let after = evaluated(&mut trainer, &scaled);
        assert_ne!(after, before);
        assert_eq!(after, evaluated(&mut new(&scaled), &scaled));
        assert_eq!(before, evaluated(&mut trainer, &plain));
    }

    #[test]
    fn texts_are_measured_by_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "a".repeat(90) + &"b".repeat(10)).unwrap();
        let data = DataConfig::Text { path: path.clone(), tokens: None, steps: 8 };
        let mut samples = Samples::read(&data, &path, &Reading::default()).unwrap();
        let Samples::Texts { texts, .. } = samples.hold_out(0.1).unwrap() else { panic!() };
        let Samples::Texts { texts: kept, .. } = samples else { panic!() };
        assert_eq!((texts, kept), (vec![vec![68; 10]], vec![vec![67; 90]]));
    }

    #[test]
    fn text_is_read_by_the_tokens_of_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "да").unwrap();
        let read = |own: Option<Tokens>, run: Option<Tokens>| {
            let data = DataConfig::Text { path: path.clone(), tokens: own, steps: 8 };
            match Samples::read(&data, &path, &Reading { schema: None, tokens: run }) {
                Ok(Samples::Texts { texts, .. }) => Ok(texts[0].clone()),
                Ok(Samples::Rows(_)) => unreachable!(),
                Err(error) => Err(format!("{error:#}")),
            }
        };
        let alphabet = Some(Tokens::Alphabet(Alphabet::of(["да"])));
        let (bytes, letters) = (vec![0xd0, 0xb4, 0xd0, 0xb0], vec![3, 2]);
        assert_eq!(read(None, Some(Tokens::Bytes)), Ok(bytes.clone()));
        assert_eq!(read(Some(Tokens::Bytes), None), Ok(bytes));
        assert_eq!(read(alphabet.clone(), alphabet.clone()), Ok(letters));
        assert!(read(alphabet, Some(Tokens::Bytes)).unwrap_err().contains("others than the run's"));
        assert!(read(None, None).unwrap_err().contains("100.0 %"));
    }
}
