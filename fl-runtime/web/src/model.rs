//! Models: training, predictions, files.

use serde::{Deserialize, Serialize};
use tern_engine::nn::{self, Fit, Mode, Predictor, TextPredictor};
use tern_engine::{Arena, Batching, Flat, Graph, Optimizer, Training, deserialize_model};
use tern_engine::{Parameters, serialize_model};
use tern_protocol::layout::ModelKind;
use tern_protocol::trainer::{Recorder, evaluation_metrics, evaluation_steps};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};

use crate::data::Samples;
use crate::device::Device;
use crate::json;

/// Most samples that are predicted at a time.
const BATCH: usize = 256;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** Height and width: one number where both are the same. */
export type Pixels = number | [number, number];
/** Applied to a layer's outputs. */
export type Activation =
    | "identity" | "relu" | "leaky_relu" | "sigmoid" | "tanh" | "gelu" | "gelu_tanh" | "silu";
/** Filters on images; an output padding is for transposed ones alone. */
export interface Convolution {
    outputs: number; kernel: Pixels; stride: Pixels; padding: Pixels; dilation?: Pixels;
    groups?: number; output_padding?: Pixels; bias?: boolean; activation?: Activation;
}
/** A layer. */
export type Layer =
    | { embedding: { dimension: number } }
    | { lstm: { hidden: number; layers: number; coupled?: boolean; dropout?: number;
                bidirectional?: boolean; projection?: number | null } }
    | { gru: { hidden: number; layers: number; dropout?: number; bidirectional?: boolean } }
    | { linear: { outputs: number; activation?: Activation } }
    | { conv2d: Convolution }
    | { conv_transpose2d: Convolution }
    | { max_pool2d: { kernel: Pixels; stride: Pixels; padding?: Pixels } }
    | { average_pool2d: { kernel: Pixels; stride: Pixels; padding?: Pixels } }
    | { decoder: { layers: number; heads: number; key_value_heads: number; head: number;
                   hidden: number; base?: number; epsilon?: number;
                   lora?: { rank: number; alpha: number } | null } }
    | { language_model_head: { tied: boolean } }
    | { dropout: { p: number } }
    | { activation: { kind: Activation } }
    | { group_norm: { groups: number } }
    | { basic_block: { outputs: number; stride: number } }
    | "flatten" | "global_average_pool" | "batch_norm" | "layer_norm" | "rms_norm";
/** A model: what it takes in, and its layers by the names that their parameters start with. */
export interface ModelSpec {
    input:
        | { tokens: { vocabulary: number } }
        | { features: { width: number } }
        | { image: { channels: number; height: number; width: number } };
    layers: [string, Layer][];
}
/** How gradients change parameters; the fields are those of PyTorch's optimizers. */
export type Optimizer =
    | { sgd: { momentum: number; nesterov: boolean; weight_decay: number; dampening?: number } }
    | { adam: { beta1: number; beta2: number; epsilon: number; weight_decay: number;
                amsgrad?: boolean } }
    | { adam_w: { beta1: number; beta2: number; epsilon: number; weight_decay: number;
                  amsgrad?: boolean } };
/** How to train. */
export interface FitOptions {
    epochs: number;
    /** Samples of a step. */
    batch: number;
    /** Steps of an epoch; all samples once if left out. */
    steps?: number;
    /** Adam if left out. */
    optimizer?: Optimizer;
    /** 0.001 if left out. */
    learningRate?: number;
    /** Gradients are scaled down to this norm; not at all if left out. */
    clipNorm?: number;
    /** Of shuffling and dropout; 0 if left out. */
    seed?: number;
}
/** What came of an epoch, counted from 1. */
export interface Epoch {
    epoch: number;
    /** Mean loss of its steps. */
    loss: number;
}
/** What a model makes of samples. */
export interface Scores {
    loss: number;
    accuracy: number;
    /** How often the right one is among the three likeliest. */
    top3: number;
}
"#;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FitOptions {
    epochs: usize,
    batch: usize,
    steps: Option<usize>,
    optimizer: Option<Optimizer>,
    learning_rate: Option<f64>,
    clip_norm: Option<f64>,
    #[serde(default)]
    seed: u32,
}

#[derive(Serialize)]
struct Epoch {
    epoch: usize,
    loss: f32,
}

/// A model on a device.
#[wasm_bindgen]
pub struct Model {
    arena: Arena,
    model: nn::Model,
    recorder: Recorder,
    predictor: Option<Predictor>,
    reader: Option<TextPredictor>,
}

#[wasm_bindgen]
impl Model {
    /// A new model, its parameters drawn by the seed (1 if left out).
    #[wasm_bindgen(constructor)]
    pub fn new(
        device: &Device,
        #[wasm_bindgen(unchecked_param_type = "ModelSpec")] spec: JsValue,
        seed: Option<u32>,
    ) -> Result<Model, JsError> {
        let spec: nn::ModelSpec = json::read("model", &spec)?;
        let (parameters, model) = spec.build()?;
        let arena = Arena::new(&device.0, &parameters, &[seed.unwrap_or(1)])?;
        let recorder = Recorder::new(&ModelKind::Layers(spec))?;
        Ok(Model { arena, model, recorder, predictor: None, reader: None })
    }

    /// Number of parameters.
    #[wasm_bindgen(getter)]
    pub fn size(&self) -> usize {
        self.parameters().iter().map(|parameter| parameter.len()).sum()
    }

    /// Trains; `each` sees every epoch and ends the training by returning `false`. The optimizer
    /// starts anew.
    #[wasm_bindgen(unchecked_return_type = "Epoch[]")]
    pub async fn fit(
        &mut self,
        samples: &Samples,
        #[wasm_bindgen(unchecked_param_type = "FitOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "((epoch: Epoch) => boolean | void) | null")]
        each: Option<js_sys::Function>,
    ) -> Result<JsValue, JsError> {
        let options: FitOptions = json::read("options", &options)?;
        let mut graph = Graph::new(&self.arena);
        let (x, targets) = samples.0.batch(&mut graph, &Batching::shuffled(options.batch))?;
        let logits = self.model.forward(&mut graph, x, Mode::Train)?.output;
        let loss = graph.cross_entropy(logits, targets)?;
        let optimizer = options.optimizer.unwrap_or(Optimizer::adam());
        let training = Training::new(optimizer, options.learning_rate.unwrap_or(1e-3))
            .clip_norm(options.clip_norm)
            .seed(options.seed);
        let mut plan = graph.train(loss, &training)?;
        let steps = options.steps.unwrap_or(samples.0.len().div_ceil(options.batch));
        let told = |epoch: &nn::Epoch| {
            let Some(each) = &each else { return true };
            let epoch = Epoch { epoch: epoch.epoch, loss: epoch.training };
            // One that throws ends the training, too.
            json::tell(each, &epoch).is_some_and(|said| said != JsValue::FALSE)
        };
        let (epochs, _) = Fit::new(options.epochs, steps).run_async(&mut plan, None, told).await?;
        let epochs = epochs.iter().map(|e| Epoch { epoch: e.epoch, loss: e.training });
        json::write(&epochs.collect::<Vec<_>>())
    }

    /// Measures loss and accuracy on samples.
    #[wasm_bindgen(unchecked_return_type = "Scores")]
    pub async fn evaluate(&self, samples: &Samples) -> Result<JsValue, JsError> {
        let (mut plan, counts) = self.recorder.evaluation(&self.arena, &samples.0)?;
        let losses = plan.run_async(evaluation_steps(samples.0.len())).await?;
        let counts = plan.read_async(counts).await?.words()?;
        json::write(&evaluation_metrics(&counts, losses.mean()))
    }

    /// The outputs for rows of features, one row after the other.
    pub async fn predict(&mut self, features: Vec<f32>) -> Result<Vec<f32>, JsError> {
        let predictor = match self.predictor.take() {
            Some(predictor) => predictor,
            None => Predictor::new(&self.arena, &self.model, BATCH)?,
        };
        Ok(self.predictor.insert(predictor).predict_async(&features).await?)
    }

    /// A logit for each token of the vocabulary: how likely it is after a text of tokens.
    pub async fn next(&mut self, tokens: Vec<u32>) -> Result<Vec<f32>, JsError> {
        let mut next = self.reader()?.start_async(&[&tokens]).await?;
        Ok(next.swap_remove(0).logits)
    }

    /// Ways in which a text of tokens may go on: the `count` likeliest next ones, each followed by
    /// the likeliest until one of `ends` comes or there are `most`.
    #[wasm_bindgen(unchecked_return_type = "Uint32Array[]")]
    pub async fn suggest(
        &mut self,
        tokens: Vec<u32>,
        count: usize,
        ends: Vec<u32>,
        most: usize,
    ) -> Result<js_sys::Array, JsError> {
        let reader = self.reader()?;
        let start = reader.start_async(&[&tokens]).await?.swap_remove(0);
        let mut first: Vec<u32> = (0..start.logits.len() as u32).collect();
        let logit = |token: &u32| start.logits[*token as usize];
        first.sort_by(|a, b| logit(b).total_cmp(&logit(a)));
        first.truncate(count);
        let mut ways: Vec<Vec<u32>> = first.into_iter().map(|token| vec![token]).collect();
        let mut states = vec![start.state; ways.len()];
        for _ in 1..most {
            let open = |way: &Vec<u32>| way.last().is_some_and(|last| !ends.contains(last));
            let open: Vec<usize> = (0..ways.len()).filter(|i| open(&ways[*i])).collect();
            if open.is_empty() {
                break;
            }
            let last: Vec<u32> = open.iter().filter_map(|i| ways[*i].last().copied()).collect();
            let from: Vec<_> = open.iter().map(|i| &states[*i]).collect();
            let next = reader.step_async(&from, &last).await?;
            for (i, next) in open.into_iter().zip(next) {
                let likeliest = (0..next.logits.len())
                    .max_by(|a, b| next.logits[*a].total_cmp(&next.logits[*b]));
                ways[i].extend(likeliest.map(|token| token as u32));
                states[i] = next.state;
            }
        }
        Ok(ways
            .iter()
            .map(|way| JsValue::from(js_sys::Uint32Array::from(way.as_slice())))
            .collect())
    }

    /// The model as a safetensors file, by PyTorch's names.
    pub async fn save(&self) -> Result<Vec<u8>, JsError> {
        let flat = self.arena.read_async(Flat::Parameters, 0).await?;
        Ok(serialize_model(self.parameters(), &flat)?)
    }

    /// Takes the parameters of a safetensors file, each of which must be there.
    pub async fn load(&self, file: Vec<u8>) -> Result<(), JsError> {
        let flat = deserialize_model(&file, self.parameters())?;
        Ok(self.arena.write_async(Flat::Parameters, 0, &flat).await?)
    }
}

impl Model {
    fn parameters(&self) -> &Parameters {
        self.arena.parameters()
    }

    /// What reads texts, made when it is first needed.
    fn reader(&mut self) -> Result<&mut TextPredictor, JsError> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => TextPredictor::new(&self.arena, &self.model)?,
        };
        Ok(self.reader.insert(reader))
    }
}
