//! Trains a multilayer perceptron on handwritten digits and counts right answers on others.
//!
//! `cargo run --release -p tern-examples --example train_mlp`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::Result;
use tern_engine::nn::{Mode, ModelSpec, Predictor};
use tern_engine::{Arena, Batching, Device, Flat, Graph, Optimizer, RowData, Training, save_model};
use tern_examples::text::bundled_digits;
use tern_fl::simulate::files::{Rows, digits};

const BATCH: usize = 64;
const EPOCHS: usize = 3;

fn read(name: &str) -> Result<Rows> {
    let [images, labels] = bundled_digits(name)?;
    Ok(digits(&images, &labels)?)
}

fn upload(device: &Device, rows: &Rows) -> Result<RowData> {
    let Rows { features, width, labels, classes } = rows;
    Ok(RowData::upload(device, features, *width, labels, classes.len())?)
}

fn main() -> Result<()> {
    // The best device there is, or the one that TERN_DEVICE names.
    let device = Device::from_env()?;
    let (train, test) = (read("mnist8-train")?, read("mnist8-test")?);

    // The model is data; its parameters are one flat vector, started from a seed.
    let (parameters, model) = ModelSpec::mlp(train.width, &[128], 10).build()?;
    let arena = Arena::new(&device, &parameters, &[1])?;

    // A training step, recorded once: a shuffled batch, forward, loss, backward, Adam.
    let data = upload(&device, &train)?;
    let mut graph = Graph::new(&arena);
    let (inputs, targets) = graph.row_batch(&data, &Batching::shuffled(BATCH))?;
    let logits = model.forward(&mut graph, inputs, Mode::Train)?.output;
    let loss = graph.cross_entropy(logits, targets)?;
    let mut training = graph.train(loss, &Training::new(Optimizer::adam(), 1e-3))?;

    // A step of evaluation, on the same parameters.
    let held_out = upload(&device, &test)?;
    let mut graph = Graph::new(&arena);
    let (inputs, targets) = graph.row_batch(&held_out, &Batching::in_order(BATCH))?;
    let logits = model.forward(&mut graph, inputs, Mode::Evaluate)?.output;
    let loss = graph.cross_entropy(logits, targets)?;
    let counts = graph.accuracy(logits, targets, 2)?;
    let mut evaluation = graph.evaluate(loss)?;

    println!("{} parameters on {}", parameters.count(), device.name());
    for epoch in 1..=EPOCHS {
        let losses = training.run(data.len().div_ceil(BATCH))?;
        println!("epoch {epoch}: loss {:.3}", losses.mean().unwrap_or(f32::NAN));
    }
    evaluation.run(held_out.len().div_ceil(BATCH))?;
    let counts = evaluation.read(counts)?.words()?;
    let share = 100.0 * f64::from(counts[0]) / f64::from(counts[2]);
    println!("{share:.1} % of {} other digits are named right", counts[2]);

    // What it says of one image.
    let mut predictor = Predictor::new(&arena, &model, BATCH)?;
    let logits = predictor.predict(&test.features[..test.width])?;
    let said = (0..10).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
    println!("the first of them is a {said}, says the model: it is a {}", test.labels[0]);

    // In PyTorch's names and shapes.
    let path = std::env::temp_dir().join("mlp.safetensors");
    save_model(&path, &parameters, &arena.read(Flat::Parameters, 0)?)?;
    println!("the model is in {}", path.display());
    Ok(())
}
