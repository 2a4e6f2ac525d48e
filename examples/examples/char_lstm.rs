//! Trains a character LSTM on plays, then lets it write on.
//!
//! `cargo run --release -p tern-examples --example char_lstm`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::{Result, bail};
use tern_engine::nn::{Mode, ModelSpec};
use tern_engine::{Arena, Batching, Data, Device, Element, Graph, Optimizer, TextData, Training};
use tern_examples::alphabet::Alphabet;
use tern_examples::text::bundled;
use tern_fl::simulate::files::read_text;

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
    let data = TextData::upload(&device, &[alphabet.encode(&text)], vocabulary, STEPS, STEPS)?;

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
    let mut written: Vec<char> = START.chars().collect();
    let context = written.len();
    let mut graph = Graph::new(&arena);
    let input = graph.input("characters", &[context, 1], Element::U32);
    let logits = model.forward(&mut graph, input, Mode::Evaluate)?.output;
    let (logits, places) = graph.top_k(logits, CHOICES as u32)?;
    let (logits, places) = (graph.keep(logits), graph.keep(places));
    let mut prediction = graph.forward()?;
    let mut random = 1u32;
    for _ in 0..200 {
        let recent: String = written[written.len() - context..].iter().collect();
        prediction.write(input, &Data::U32(alphabet.encode(&recent)))?;
        prediction.run(1)?;
        let (Data::F32(logits), Data::U32(places)) =
            (prediction.read(logits)?, prediction.read(places)?)
        else {
            bail!("logits are floats, places words")
        };
        // Of the last time step, the largest first.
        let last = places.len() - CHOICES;
        let weights = logits[last..].iter().map(|x| (x - logits[last]).exp());
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut left = random as f32 / u32::MAX as f32 * weights.clone().sum::<f32>();
        let drawn = weights.take_while(|weight| {
            left -= weight;
            left > 0.0
        });
        let place = places[last + drawn.count().min(CHOICES - 1)];
        written.push(alphabet.char(place).unwrap_or('?'));
    }
    println!("{}", written.iter().collect::<String>());
    Ok(())
}
