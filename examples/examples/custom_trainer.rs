//! A federation whose clients train by code of their own: anything that turns a model into an
//! update can take part. Here it is a mean, found by gradient steps in plain Rust.
//!
//! `cargo run --release -p tern-examples --example custom_trainer`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::Result;
use tern_engine::Device;
use tern_fl::layout::{ModelKind, TensorSpec};
use tern_fl::metrics::Metrics;
use tern_fl::server::local::{Client, Options, run};
use tern_fl::trainer::{Job, Trained, Trainer};
use tern_fl::{RunPlan, TaskSpec};

/// Knows some numbers, and pulls the model's one parameter towards their mean.
struct Means(Vec<f32>);

impl Means {
    fn loss(&self, model: &[f32]) -> f64 {
        let squares = self.0.iter().map(|x| f64::from(x - model[0]).powi(2));
        squares.sum::<f64>() / self.0.len() as f64
    }
}

impl Trainer for Means {
    fn samples(&self) -> u32 {
        self.0.len() as u32
    }

    fn train(&mut self, task: &TaskSpec, job: &Job) -> tern_fl::Result<Trained> {
        let mean = self.0.iter().sum::<f32>() / self.0.len() as f32;
        // An update is as long as the model's flat vector, whose padding stays zero.
        let mut update = vec![0.0; job.model.len()];
        update[0] = task.training.learning_rate as f32 * (mean - job.model[0]);
        let metrics = Metrics::from([("loss".to_string(), self.loss(&job.model))]);
        Ok(Trained::new(update, self.samples(), metrics))
    }

    fn evaluate(&mut self, _: &TaskSpec, model: &[f32]) -> tern_fl::Result<(u32, Metrics)> {
        Ok((self.samples(), Metrics::from([("loss".to_string(), self.loss(model))])))
    }
}

fn main() -> Result<()> {
    let device = Device::cpu();
    let numbers = [vec![1.0, 2.0], vec![10.0], vec![4.0, 5.0, 6.0]];
    let mean = 28.0 / 6.0;
    let mut clients: Vec<Client<Means>> =
        numbers.into_iter().enumerate().map(|(i, x)| Client::numbered(i, Means(x))).collect();

    // A model of one tensor that no layer knows.
    let model = ModelKind::Tensors(vec![TensorSpec { name: "mean".into(), shape: vec![1] }]);
    let mut plan = RunPlan::new("mean", model, 15);
    (plan.cohort.size, plan.cohort.minimum) = (3, 3);
    plan.training.learning_rate = 0.5;

    let folder = tempfile::tempdir()?;
    let options = Options::new(&device, folder.path());
    let mut last = 0.0;
    run(&plan, None, &mut clients, options, |round, model| {
        last = model[0];
        println!("round {:2}: {:.4}", round.committed.round, last);
    })?;
    anyhow::ensure!((last - mean).abs() < 1e-3, "{last} isn't near {mean}");
    Ok(())
}
