//! Trains a character LSTM on plays, then lets it write on.
//!
//! `cargo run --release -p tern-examples --example char_lstm`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::Result;
use tern_engine::nn::{Mode, ModelSpec, TextPredictor};
use tern_engine::{Arena, Batching, Device, Graph, Optimizer, TextData, TextWindows, Training};
use tern_examples::text::bundled;
use tern_fl::simulate::files::read_text;
use tern_fl::tokens::Alphabet;

const STEPS: usize = 50;
const BATCH: usize = 20;
const CHOICES: usize = 4;
const START: &str = "The king ";

fn main() -> Result<()> {
    let device = Device::from_env()?;
    let text = read_text(&bundled("shakespeare-roles.txt.gz")?)?.text;
    let alphabet = Alphabet::of([text.as_str()]);

    // Windows of 50 characters, the next one of each to be predicted; they stay on the device.
    let vocabulary = alphabet.tokens();
    let data =
        TextData::upload(&device, &[alphabet.encode(&text)], TextWindows::new(vocabulary, STEPS))?;

    let (parameters, model) = ModelSpec::language_model(vocabulary, 16, 128, 1).build()?;
    let arena = Arena::new(&device, &parameters, &[1])?;
    let mut graph = Graph::new(&arena);
    let (inputs, targets) = graph.text_batch(&data, &Batching::shuffled(BATCH))?;
    let logits = model.forward(&mut graph, inputs, Mode::Train)?.output;
    let loss = graph.cross_entropy(logits, targets)?;
    let mut training = graph.train(loss, &Training::new(Optimizer::adam(), 5e-3))?;
    for part in 1..=5 {
        let losses = training.run(200)?;
        println!("{} steps: loss {:.2}", 200 * part, losses.mean().unwrap_or(f32::NAN));
    }

    // It writes on: of the four most probable next characters one is drawn, again and again.
    let mut reader = TextPredictor::new(&arena, &model)?;
    let mut next = reader.start(&[&alphabet.encode(START)])?.swap_remove(0);
    let (mut written, mut random) = (String::from(START), 1u32);
    for _ in 0..200 {
        let mut best: Vec<(u32, f32)> = (0..).zip(next.logits).collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1));
        best.truncate(CHOICES);
        let weight = |logit: f32| (logit - best[0].1).exp();
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let sum: f32 = best.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut left = random as f32 / u32::MAX as f32 * sum;
        let drawn = best.iter().position(|(_, logit)| {
            left -= weight(*logit);
            left <= 0.0
        });
        let (token, _) = best[drawn.unwrap_or(CHOICES - 1)];
        written.push(alphabet.char(token).unwrap_or('?'));
        next = reader.step(&[&next.state], &[token])?.swap_remove(0);
    }
    println!("{written}");
    Ok(())
}
