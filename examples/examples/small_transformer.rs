//! Trains a small transformer on plays, a decoder of Llama's shape, then lets it write on, with its
//! keys and values kept from token to token. At the end adapters of rank 4 learn to write in capitals,
//! with all other weights as they were.
//!
//! `cargo run --release -p tern-examples --example small_transformer [STEPS]`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::{Context, Result};
use tern_engine::nn::{
    DecoderConfig, Generator, LORA, LoraConfig, Mode, Model, ModelSpec, Sampler,
};
use tern_engine::{
    Arena, Batching, Device, Flat, Graph, Optimizer, Plan, TextData, TextWindows, Trainable,
    Training,
};
use tern_examples::text::bundled;
use tern_fl::simulate::files::read_text;
use tern_fl::tokens::Alphabet;

const WINDOW: usize = 64;
const BATCH: usize = 8;
const START: &str = "The king ";

/// A plan that trains on the next characters of a text.
fn plan(arena: &Arena, model: &Model, tokens: Vec<u32>, training: &Training) -> Result<Plan> {
    let windows = TextWindows::new(vocabulary(model), WINDOW);
    let data = TextData::upload(arena.device(), &[tokens], windows)?;
    let mut graph = Graph::new(arena);
    let (inputs, targets) = graph.text_batch(&data, &Batching::shuffled(BATCH))?;
    let logits = model.forward(&mut graph, inputs, Mode::Train)?.output;
    let loss = graph.cross_entropy(logits, targets)?;
    Ok(graph.train(loss, training)?)
}

fn vocabulary(model: &Model) -> usize {
    match model.input() {
        tern_engine::nn::Input::Tokens { vocabulary } => vocabulary,
        _ => 0,
    }
}

fn write(arena: &Arena, model: &Model, alphabet: &Alphabet) -> Result<String> {
    let mut generator = Generator::new(arena, model, 1, 256)?;
    let mut sampler = Sampler::new(1).temperature(0.8).top_k(8);
    let prompt = alphabet.encode(START);
    let written = generator.generate(&[&prompt], 200, |_, logits| Some(sampler.draw(logits)))?;
    let written = written[0].iter().map(|token| alphabet.char(*token).unwrap_or('?'));
    Ok(START.chars().chain(written).collect())
}

fn main() -> Result<()> {
    let steps = std::env::args().nth(1).map_or(Ok(500), |steps| steps.parse());
    let steps: usize = steps.context("STEPS: a number of training steps")?;
    let device = Device::from_env()?;
    let text = read_text(&bundled("shakespeare-roles.txt.gz")?)?.text;
    let alphabet = Alphabet::of([text.as_str()]);

    // Two blocks of 128, four heads of which two share keys and values; the logits of the next
    // character are taken by the embedding's table.
    let config = DecoderConfig::new(2, 4, 32, 256).key_value_heads(2).lora(LoraConfig::new(4));
    let spec = ModelSpec::decoder(alphabet.tokens(), 128, config, true);
    let (parameters, model) = spec.build()?;
    let arena = Arena::new(&device, &parameters, &[1])?;
    println!("{} parameters on {}", parameters.count(), device.name());

    // All but the adapters.
    let weights = Trainable::Prefixes(vec!["model.".into()]);
    let training = Training::new(Optimizer::adamw(), 2e-3).clip_norm(1.0).trainable(weights);
    let mut training = plan(&arena, &model, alphabet.encode(&text), &training)?;
    for part in 1..=5 {
        let losses = training.run(steps.div_ceil(5))?;
        let (done, loss) = (part * steps.div_ceil(5), losses.mean().unwrap_or(f32::NAN));
        println!("{done} steps: loss {loss:.2}");
    }
    println!("\n{}\n", write(&arena, &model, &alphabet)?);

    // Capitals that the plays have, too: names of roles begin with them.
    let capitals: String = text.to_uppercase().chars().filter(|c| text.contains(*c)).collect();
    let adapters =
        Training::new(Optimizer::adamw(), 5e-3).trainable(Trainable::Prefixes(vec![LORA.into()]));
    let mut adapting = plan(&arena, &model, alphabet.encode(&capitals), &adapters)?;
    let losses = adapting.run(steps.div_ceil(5))?;
    let loss = losses.last().unwrap_or(f32::NAN);
    println!("{} steps of the adapters alone: loss {loss:.2}\n", steps.div_ceil(5));
    println!("{}", write(&arena, &model, &alphabet)?);

    // Merged, they are a part of the weights, and the model says the same.
    let mut flat = arena.read(Flat::Parameters, 0)?;
    model.merge_adapters(&parameters, &mut flat)?;
    arena.write(Flat::Parameters, 0, &flat)?;
    println!("\nmerged: {}", write(&arena, &model, &alphabet)?);
    Ok(())
}
