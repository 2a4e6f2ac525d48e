//! Predictions of samples and texts from the host, held against a plain forward pass.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use tern_engine::nn::{Input, LayerSpec, Mode, Model, ModelSpec, Predictor, TextPredictor};
use tern_engine::{Activation, Arena, Data, Device, Element, Graph};

mod common;

use common::{devices, floats};

/// What every replica's model gives for samples at once.
fn at_once(arena: &Arena, model: &Model, samples: &[f32], width: usize) -> Vec<f32> {
    let mut graph = Graph::new(arena);
    let input = graph.input("all", &[samples.len() / width, width], Element::F32);
    let output = model.forward(&mut graph, input, Mode::Evaluate).unwrap().output;
    let output = graph.keep(output);
    let mut plan = graph.forward().unwrap();
    plan.write(input, &Data::F32(samples.repeat(arena.replicas()))).unwrap();
    plan.run(1).unwrap();
    plan.read(output).unwrap().floats().unwrap()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 1e-5, "{at}: {a}, expected {b}");
    }
}

#[test]
fn samples_of_any_number_have_the_outputs_of_one_pass() {
    let image = ModelSpec {
        input: Input::Image { channels: 1, height: 4, width: 3 },
        layers: vec![
            ("0".into(), LayerSpec::Flatten),
            ("1".into(), LayerSpec::Dropout { p: 0.5 }),
            ("2".into(), LayerSpec::Linear { outputs: 3, activation: Activation::Tanh }),
        ],
    };
    for device in devices() {
        for (spec, width) in [(ModelSpec::mlp(5, &[7], 3), 5), (image.clone(), 12)] {
            let (parameters, model) = spec.build().unwrap();
            let arena = Arena::new(&device, &parameters, &[1, 2, 3]).unwrap();
            let mut predictor = Predictor::new(&arena, &model, 16).unwrap();
            for count in [1, 7, 8, 9, 16, 17, 50] {
                let samples = floats(count * width, 7);
                let expected = at_once(&arena, &model, &samples, width);
                close(&predictor.predict(&samples).unwrap(), &expected);
            }
        }
    }
}

#[test]
fn several_outputs_are_read_by_sample() {
    let (parameters, model) = ModelSpec::mlp(4, &[6], 2).build().unwrap();
    let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
    let two = model.clone();
    let mut predictor = Predictor::record(&arena, 4, 8, move |graph, samples| {
        let forward = two.forward(graph, samples, Mode::Evaluate)?;
        Ok(vec![forward.features, forward.output])
    })
    .unwrap();
    let samples = floats(4 * 11, 7);
    let outputs = predictor.outputs(&samples).unwrap();
    assert_eq!(outputs.iter().map(Vec::len).collect::<Vec<_>>(), [6 * 11, 2 * 11]);
    close(&outputs[1], &at_once(&arena, &model, &samples, 4));
}

#[test]
fn what_cannot_be_predicted_is_named() {
    let (parameters, model) = ModelSpec::mlp(4, &[], 2).build().unwrap();
    let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
    let mut predictor = Predictor::new(&arena, &model, 8).unwrap();
    let error = |samples: &[f32], predictor: &mut Predictor| {
        predictor.predict(samples).unwrap_err().to_string()
    };
    let expected = "numbers of the samples is 5, expected rows of 4, at least one";
    assert_eq!(error(&[0.0; 5], &mut predictor), expected);
    assert!(error(&[], &mut predictor).contains("samples is 0"));
    let expected = "number 2 of sample 1 is NaN, expected a finite number";
    let samples = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0];
    assert_eq!(error(&samples, &mut predictor), expected);
    assert!(Predictor::new(&arena, &model, 0).is_err());
    // An output that isn't by sample.
    let summed = Predictor::record(&arena, 4, 8, |graph, _| Ok(vec![graph.constant(1.0, &[1])]));
    assert!(summed.err().unwrap().to_string().contains("expected floats [8, ...]"));
    let (parameters, _) = ModelSpec::mlp(3, &[], 2).build().unwrap();
    let other = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
    assert!(Predictor::new(&other, &model, 8).is_err(), "parameters of another model");

    let (parameters, text) = ModelSpec::language_model(9, 3, 4, 1).build().unwrap();
    let texts = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
    assert!(Predictor::new(&texts, &text, 8).is_err());
    assert!(TextPredictor::new(&arena, &model).is_err());
    let two = Arena::new(&Device::cpu(), &parameters, &[1, 2]).unwrap();
    assert!(TextPredictor::new(&two, &text).is_err());
    let mut reader = TextPredictor::new(&texts, &text).unwrap();
    let error = reader.start(&[&[1], &[]]).unwrap_err().to_string();
    assert_eq!(error, "text 1 is empty, expected at least one token");
    let error = reader.start(&[&[1, 9]]).unwrap_err().to_string();
    assert_eq!(error, "token 0 is 9, expected one below 9");
    let state = reader.start(&[&[1]]).unwrap().remove(0).state;
    assert!(reader.step(&[&state], &[1, 2]).is_err());
    assert!(reader.start(&[]).unwrap().is_empty());
}

#[test]
fn token_by_token_a_text_is_expected_as_when_it_is_read_at_once() {
    for device in devices() {
        let (parameters, model) = ModelSpec::language_model(11, 5, 6, 2).build().unwrap();
        let arena = Arena::new(&device, &parameters, &[3]).unwrap();
        let text: Vec<u32> = (0..30).map(|i| i * i % 11).collect();
        let mut graph = Graph::new(&arena);
        let input = graph.input("text", &[text.len(), 1], Element::U32);
        let output = model.forward(&mut graph, input, Mode::Evaluate).unwrap().output;
        let output = graph.keep(output);
        let mut plan = graph.forward().unwrap();
        plan.write(input, &Data::U32(text.clone())).unwrap();
        plan.run(1).unwrap();
        let logits = plan.read(output).unwrap().floats().unwrap();
        let expected = |read: usize| &logits[(read - 1) * 11..read * 11];

        let mut reader = TextPredictor::new(&arena, &model).unwrap();
        // Texts of unequal length side by side, and one of them goes on.
        let starts = reader.start(&[&text[..1], &text[..20], &text]).unwrap();
        close(&starts[1].logits, expected(20));
        close(&starts[2].logits, expected(30));
        let mut next = starts[0].clone();
        for (at, token) in text.iter().enumerate().skip(1) {
            close(&next.logits, expected(at));
            next = reader.step(&[&next.state], &[*token]).unwrap().remove(0);
        }
        close(&next.logits, &starts[2].logits);
    }
}

#[test]
fn more_texts_than_a_plan_holds_are_read_in_parts() {
    let (parameters, model) = ModelSpec::language_model(11, 5, 6, 1).build().unwrap();
    let arena = Arena::new(&Device::cpu(), &parameters, &[3]).unwrap();
    let mut reader = TextPredictor::new(&arena, &model).unwrap();
    let texts: Vec<Vec<u32>> = (0..1030).map(|i| vec![i % 11]).collect();
    let all = reader.start(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    assert_eq!(all.len(), 1030);
    assert_eq!(all[3], all[3 + 11 * 93]);
    assert_ne!(all[3].state, all[4].state);
}
