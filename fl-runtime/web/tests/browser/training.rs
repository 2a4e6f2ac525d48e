//! Models learn in the browser as they do here.

use std::path::Path;
use std::time::Instant;

use serde_json::json;
use tern_engine::nn::{Fit, Mode, ModelSpec, Predictor};
use tern_engine::{
    Arena, Batching, Device, DeviceOptions, Flat, Graph, Kind, Optimizer, RowData, Select,
    TextData, TextWindows, Training, deserialize_model,
};
use tern_protocol::trainer::LocalData;
use tern_simulate::files::{digits, read_text};

use crate::chromium::Tab;
use crate::{COMPUTING, floats, serve_page, tab_with, tab_with_module, with_browser};

/// Largest difference of an epoch's mean loss to that of the `Cpu` device here, relative to it:
/// sums are of other orders.
const TOLERANCE: f64 = 2e-3;

/// What a device is asked to train, from seed 1.
struct Task {
    spec: ModelSpec,
    epochs: usize,
    batch: usize,
    steps: usize,
    rate: f64,
    data: Numbers,
}

enum Numbers {
    Rows { features: Vec<f32>, labels: Vec<u32>, classes: usize },
    Text { tokens: Vec<u32>, vocabulary: usize, steps: usize },
}

fn bundled(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data").join(name)
}

/// A perceptron for handwritten digits of 8 × 8 pixels.
fn perceptron() -> Task {
    let [images, labels] = ["optdigits-images-idx3-ubyte.gz", "optdigits-labels-idx1-ubyte.gz"];
    let rows = digits(&bundled(images), &bundled(labels)).unwrap();
    let (width, classes) = (rows.width, 10);
    let data = Numbers::Rows { features: rows.features, labels: rows.labels, classes };
    Task {
        spec: ModelSpec::mlp(width, &[32], classes),
        epochs: 6,
        batch: 32,
        steps: 50,
        rate: 3e-3,
        data,
    }
}

/// A language model of 23,616 parameters for plays, whose characters are told apart by six bits.
fn language_model() -> Task {
    let text = read_text(&bundled("shakespeare-roles.txt.gz")).unwrap().text;
    let tokens = text.bytes().take(20_000).map(|byte| u32::from(byte % 64)).collect();
    Task {
        spec: ModelSpec::language_model(64, 8, 64, 1),
        epochs: 5,
        batch: 16,
        steps: 12,
        rate: 1e-2,
        data: Numbers::Text { tokens, vocabulary: 64, steps: 20 },
    }
}

impl Task {
    /// Mean losses of the epochs on a device here, and seconds of a step of the fastest.
    fn here(&self, device: &Device) -> (Vec<f64>, f64) {
        let data = match &self.data {
            Numbers::Rows { features, labels, classes } => {
                let width = features.len() / labels.len();
                LocalData::Rows(RowData::upload(device, features, width, labels, *classes).unwrap())
            }
            Numbers::Text { tokens, vocabulary, steps } => {
                let windows = TextWindows::new(*vocabulary, *steps);
                LocalData::Text(TextData::upload(device, &[tokens], windows).unwrap())
            }
        };
        let (parameters, model) = self.spec.build().unwrap();
        let arena = Arena::new(device, &parameters, &[1]).unwrap();
        let mut graph = Graph::new(&arena);
        let (x, targets) = data.batch(&mut graph, &Batching::shuffled(self.batch)).unwrap();
        let logits = model.forward(&mut graph, x, Mode::Train).unwrap().output;
        let loss = graph.cross_entropy(logits, targets).unwrap();
        let training = Training::new(Optimizer::adam(), self.rate);
        let mut plan = graph.train(loss, &training).unwrap();
        plan.prepare().unwrap();
        let (mut began, mut least) = (Instant::now(), f64::MAX);
        let each = |_: &tern_engine::nn::Epoch| {
            least = least.min(began.elapsed().as_secs_f64() / self.steps as f64);
            began = Instant::now();
            true
        };
        let (epochs, _) = Fit::new(self.epochs, self.steps).run(&mut plan, None, each).unwrap();
        (epochs.iter().map(|epoch| f64::from(epoch.training)).collect(), least)
    }

    /// Makes the model `model` and its samples `samples` in a tab.
    fn set_up(&self, tab: &Tab<'_>, device: &str) {
        let samples = match &self.data {
            Numbers::Rows { features, labels, classes } => format!(
                "tern.Samples.rows(device, new Float32Array({}), {}, new Uint32Array({}), {classes})",
                json!(features),
                features.len() / labels.len(),
                json!(labels),
            ),
            Numbers::Text { tokens, vocabulary, steps } => format!(
                "tern.Samples.text(device, new Uint32Array({}), {vocabulary}, {steps})",
                json!(tokens)
            ),
        };
        let spec = serde_json::to_string(&self.spec).unwrap();
        tab.evaluate(&format!(
            "(async () => {{ globalThis.device = await tern.Device.open({device:?}); \
             globalThis.samples = await {samples}; \
             globalThis.model = new tern.Model(device, {spec}, 1); }})()"
        ))
        .unwrap();
    }

    /// Trains in a tab: the epochs' losses, and seconds of a step of the fastest.
    fn there(&self, tab: &Tab<'_>) -> (Vec<f64>, f64) {
        let options = json!({ "epochs": self.epochs, "batch": self.batch, "steps": self.steps,
                              "learningRate": self.rate });
        let fitted = tab
            .evaluate(&format!(
                "(async () => {{ const times = [performance.now()]; \
                 const epochs = await model.fit(samples, {options}, \
                 () => {{ times.push(performance.now()); }}); \
                 return [epochs.map(epoch => epoch.loss), \
                 times.slice(1).map((time, at) => time - times[at])]; }})()"
            ))
            .unwrap();
        let [losses, times] = [0, 1].map(|part| floats(&fitted[part]));
        assert_eq!(times.len(), self.epochs);
        let least = times.into_iter().fold(f32::MAX, f32::min);
        (losses.into_iter().map(f64::from).collect(), f64::from(least) / 1e3 / self.steps as f64)
    }
}

/// Trains on every device of a browser and here.
fn learns(name: &str, task: &Task, falls_to: f64) {
    let Some((serving, browser)) = with_browser(serve_page) else { return };
    let (expected, seconds) = task.here(&Device::cpu());
    eprintln!("{name} on {} here: {:.3} ms a step", Device::cpu().name(), 1e3 * seconds);
    assert!(expected.last().unwrap() < &(falls_to * expected[0]), "{expected:?}");
    // A GPU in software of this machine, for the time alone.
    let software = DeviceOptions::new(Select::Kind(Kind::Software));
    let event_loop = tokio::runtime::Builder::new_current_thread().build().unwrap();
    if let Ok(device) = event_loop.block_on(Device::open(&software)) {
        let (_, seconds) = task.here(&device);
        eprintln!("{name} on {} here: {:.3} ms a step", device.name(), 1e3 * seconds);
    }
    for (device, build) in COMPUTING {
        let tab = tab_with(&browser, &serving, build);
        task.set_up(&tab, device);
        let (losses, seconds) = task.there(&tab);
        eprintln!("{name} on {device} there, {build}: {:.3} ms a step", 1e3 * seconds);
        assert_eq!(losses.len(), expected.len());
        for (loss, expected) in losses.iter().zip(&expected) {
            let off = (loss - expected).abs() / expected;
            assert!(off < TOLERANCE, "{name} on {device}, {build}: {losses:?}, here {expected:?}");
        }
        tab.close();
    }
}

#[test]
fn a_perceptron_learns_digits() {
    learns("perceptron", &perceptron(), 0.3);
}

#[test]
fn a_language_model_learns_plays() {
    let task = language_model();
    let (parameters, _) = task.spec.build().unwrap();
    assert_eq!(parameters.iter().map(|p| p.len()).sum::<usize>(), 23_616);
    learns("language model", &task, 0.9);
}

#[test]
fn models_go_to_files_and_back_and_predict_as_here() {
    let Some((serving, browser)) = with_browser(serve_page) else { return };
    let task = perceptron();
    let (parameters, model) = task.spec.build().unwrap();
    for device in ["cpu", "software"] {
        let tab = tab_with_module(&browser, &serving);
        task.set_up(&tab, device);
        task.there(&tab);
        let scores = tab.evaluate("model.evaluate(samples)").unwrap();
        assert!(scores["accuracy"].as_f64().unwrap() > 0.9, "{scores}");
        // What is saved there is read here, and predicts the same.
        let file = tab.evaluate("model.save().then(file => [...file])").unwrap();
        let file: Vec<u8> = serde_json::from_value(file).unwrap();
        let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
        let flat = deserialize_model(&file, &parameters).unwrap();
        arena.write(Flat::Parameters, 0, &flat).unwrap();
        let Numbers::Rows { features, .. } = &task.data else { unreachable!("digits are rows") };
        let rows = &features[..64 * 20];
        let expected = Predictor::new(&arena, &model, 20).unwrap().predict(rows).unwrap();
        let found = tab
            .evaluate(&format!(
                "model.predict(new Float32Array({})).then(found => [...found])",
                json!(rows)
            ))
            .unwrap();
        for (found, expected) in floats(&found).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{device}");
        }
        // And into another model, on which nothing of it was.
        let again = tab
            .evaluate(&format!(
                "(async () => {{ const other = new tern.Model(device, {}, 9); \
                 await other.load(await model.save()); \
                 return [...await other.predict(new Float32Array({}))]; }})()",
                serde_json::to_string(&task.spec).unwrap(),
                json!(rows)
            ))
            .unwrap();
        assert_eq!(again, found, "{device}");
        // Errors name what was wrong.
        let error = tab.evaluate("model.load(new Uint8Array(3))").unwrap_err();
        assert!(error.contains("model in memory: is no complete safetensors file"), "{error}");
        let error = tab.evaluate("model.fit(samples, { epochs: 1, size: 3 }, null)").unwrap_err();
        assert!(error.contains("options: unknown field `size`"), "{error}");
        tab.close();
    }
}

#[test]
fn texts_go_on_by_the_likeliest_tokens() {
    let Some((serving, browser)) = with_browser(serve_page) else { return };
    let tab = tab_with_module(&browser, &serving);
    let task = language_model();
    task.set_up(&tab, "cpu");
    let logits = tab.evaluate("model.next(new Uint32Array([5, 9, 1])).then(x => [...x])").unwrap();
    let logits = floats(&logits);
    let suggested = "model.suggest(new Uint32Array([5, 9, 1]), 3, new Uint32Array([]), 4)";
    let ways = tab.evaluate(&format!("{suggested}.then(ways => ways.map(way => [...way]))"));
    let ways: Vec<Vec<usize>> = serde_json::from_value(ways.unwrap()).unwrap();
    assert_eq!(ways.len(), 3);
    let below = |token: usize| logits.iter().filter(|logit| **logit > logits[token]).count();
    for (place, way) in ways.iter().enumerate() {
        assert_eq!((below(way[0]), way.len()), (place, 4), "{ways:?}");
        // The next of each is what is likeliest after the text with it.
        let next = tab.evaluate(&format!(
            "model.next(new Uint32Array([5, 9, 1, {}])).then(x => x.indexOf(Math.max(...x)))",
            way[0]
        ));
        assert_eq!(next.unwrap(), way[1]);
    }
    let ended = suggested.replace("Uint32Array([])", &format!("Uint32Array([{}])", ways[0][0]));
    let first = tab.evaluate(&format!("{ended}.then(ways => [...ways[0]])")).unwrap();
    assert_eq!(first, json!([ways[0][0]]), "it ends there");
}
