//! The engine by theme, each page with a program that runs.
//!
//! | Page | What it shows |
//! |---|---|
//! | [`ops`] | composing a model of ops instead of layers |
//! | [`regression`] | fitting numbers instead of classes, with a part held out |
//! | [`inference`] | predictions of samples and of texts from a trained model |
//! | [`transformer`] | a decoder of Llama's shape: its files, its training, adapters, texts |
//! | [`kernel`] | an op of one's own, from WGSL to its gradient |
//! | [`from_pytorch`] | weights, labels and options that come from PyTorch |
//! | [`trouble`] | what to do about a loss that is no number |
//!
//! ```
//! // Names that are imported all at once leave the standard library's `Result` usable: a second
//! // parameter is the error, and without one it is the engine's.
//! use tern_engine::*;
//!
//! fn number(text: &str) -> Result<f32, std::num::ParseFloatError> {
//!     text.parse()
//! }
//!
//! fn device() -> Result<Device> {
//!     Ok(Device::cpu())
//! }
//!
//! assert_eq!(number("0.5"), Ok(0.5));
//! assert!(device().is_ok());
//! ```

pub mod ops {
    //! A model composed of ops.
    //!
    //! A [`Graph`](crate::Graph) has a method for each op. It checks shapes, records the kernels
    //! to be called, and knows the gradient; nothing is computed before the plan runs. Shapes
    //! leave out the replicas.
    //!
    //! ```
    //! use tern_engine::{
    //!     Activation, Arena, Data, Device, Element, Flat, Graph, Init, Optimizer, Parameters,
    //!     Training,
    //! };
    //!
    //! # fn main() -> tern_engine::Result<()> {
    //! // A gate: y = sigmoid(x · gᵀ) · tanh(x · wᵀ), two inputs, three outputs.
    //! let mut parameters = Parameters::new();
    //! let gate = parameters.add("gate", &[3, 2], Init::Uniform(0.7))?;
    //! let weight = parameters.add("weight", &[3, 2], Init::Uniform(0.7))?;
    //! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
    //!
    //! let mut graph = Graph::new(&arena);
    //! let x = graph.input("x", &[4, 2], Element::F32);
    //! let wanted = graph.input("wanted", &[4, 3], Element::F32);
    //! let open = graph.linear(x, &gate, None, Activation::Sigmoid)?;
    //! let value = graph.linear(x, &weight, None, Activation::Tanh)?;
    //! let y = graph.multiply(open, value)?;
    //! // Read after each step; otherwise its memory would be used again.
    //! graph.keep(y);
    //! let loss = graph.mse(y, wanted, None)?;
    //!
    //! let mut plan = graph.train(loss, &Training::new(Optimizer::adam(), 0.05))?;
    //! plan.write(x, &Data::F32(vec![0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.5, 0.5]))?;
    //! plan.write(wanted, &Data::F32([[0.5, 0.0, -0.25]; 4].concat()))?;
    //! let losses = plan.run(200)?;
    //! assert!(losses.last() < Some(0.1 * losses.by_replica[0][0]));
    //! assert_eq!(plan.read(y)?.len(), 12);
    //! assert_eq!(arena.read(Flat::Parameters, 0)?.len(), parameters.words());
    //! # Ok(())
    //! # }
    //! ```
    //!
    //! Gradients without an optimizer, of inputs too, are [`Graph::gradients`](crate::Graph::gradients);
    //! a forward pass alone is [`Graph::forward`](crate::Graph::forward).
}

pub mod regression {
    //! Fitting numbers: the mean squared error, and the model of the best epoch.
    //!
    //! [`RowData`](crate::RowData) has classes; numbers to fit are features of their own, cut off
    //! the row by [`Graph::slice`](crate::Graph::slice).
    //!
    //! ```
    //! use tern_engine::nn::{Fit, Mode, ModelSpec};
    //! use tern_engine::{
    //!     Arena, Batching, Device, Graph, IGNORE, Optimizer, Plan, RowData, Training,
    //! };
    //!
    //! # fn main() -> tern_engine::Result<()> {
    //! let device = Device::cpu();
    //! // Rows of x, x² and what is to be found: 2 x² − x + 0.5.
    //! let row = |i: usize| {
    //!     let x = (i * 37 % 101) as f32 / 50.0 - 1.0;
    //!     [x, x * x, 2.0 * x * x - x + 0.5]
    //! };
    //! let rows: Vec<f32> = (0..101).flat_map(row).collect();
    //! let data = RowData::upload(&device, &rows, 3, &vec![IGNORE; 101], 0)?;
    //!
    //! let (parameters, model) = ModelSpec::mlp(2, &[], 1).build()?;
    //! let arena = Arena::new(&device, &parameters, &[1])?;
    //! // The first 80 train, the others say when to stop.
    //! let record = |part, mode, training: Option<&Training>| -> tern_engine::Result<Plan> {
    //!     let mut graph = Graph::new(&arena);
    //!     let batches = Batching::shuffled(16).parts([part]);
    //!     let (rows, _) = graph.row_batch(&data, &batches)?;
    //!     let inputs = graph.slice(rows, 1, 0..2)?;
    //!     let wanted = graph.slice(rows, 1, 2..3)?;
    //!     let found = model.forward(&mut graph, inputs, mode)?.output;
    //!     // Rows that a short batch lacks don't count.
    //!     let count = graph.batch_rows(16);
    //!     let loss = graph.mse(found, wanted, Some(count))?;
    //!     match training {
    //!         Some(training) => graph.train(loss, training),
    //!         None => graph.evaluate(loss),
    //!     }
    //! };
    //! let mut training =
    //!     record(0..80, Mode::Train, Some(&Training::new(Optimizer::adam(), 0.05)))?;
    //! let mut evaluation = record(80..101, Mode::Evaluate, None)?;
    //! let fit = Fit::new(200, 5).evaluation_steps(2).patience(30);
    //! let (epochs, _) = fit.run(&mut training, Some(&mut evaluation), |_| true)?;
    //! let best = epochs.iter().filter_map(|e| e.evaluation).fold(f32::INFINITY, f32::min);
    //! assert!(best < 1e-3, "{best}");
    //! # Ok(())
    //! # }
    //! ```
}

pub mod inference {
    //! What a trained model says of new samples.
    //!
    //! [`Predictor`](crate::nn::Predictor) and [`TextPredictor`](crate::nn::TextPredictor) record
    //! the plans that they need, by the weights that are in the arena at the time.
    //!
    //! ```
    //! use std::path::Path;
    //! use tern_engine::nn::{ModelSpec, Predictor, TextPredictor};
    //! use tern_engine::{Arena, Device, Flat, load_model, save_model};
    //!
    //! # fn main() -> tern_engine::Result<()> {
    //! # let folder = std::env::temp_dir().join(format!("tern-guide-{}", std::process::id()));
    //! # std::fs::create_dir_all(&folder).ok();
    //! # let path: &Path = &folder.join("model.safetensors");
    //! # let (parameters, _) = ModelSpec::mlp(4, &[8], 3).build()?;
    //! # save_model(path, &parameters, &parameters.initial(7))?;
    //! let (parameters, model) = ModelSpec::mlp(4, &[8], 3).build()?;
    //! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
    //! arena.write(Flat::Parameters, 0, &load_model(path, &parameters)?)?;
    //! let mut predictor = Predictor::new(&arena, &model, 64)?;
    //! // Logits of two samples, a row each.
    //! let logits = predictor.predict(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])?;
    //! assert_eq!(logits.len(), 2 * 3);
    //! # std::fs::remove_dir_all(&folder).ok();
    //!
    //! // Texts, token by token: what may come next, from the state after what was read.
    //! let (parameters, model) = ModelSpec::language_model(20, 8, 16, 1).build()?;
    //! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
    //! let mut predictor = TextPredictor::new(&arena, &model)?;
    //! let read = predictor.start(&[&[3, 1, 4][..], &[1, 5]])?;
    //! let next = predictor.step(&[&read[0].state, &read[1].state], &[1, 9])?;
    //! assert_eq!(next[0].logits.len(), 20);
    //! # Ok(())
    //! # }
    //! ```
}

pub mod transformer {
    //! A transformer decoder of Llama's shape.
    //!
    //! [`ModelSpec::llama`](crate::nn::ModelSpec::llama) reads the `config.json` beside the weights,
    //! and [`load_weights`](crate::load_weights) those: SmolLM2's, say. Adapters are parameters of
    //! their own, whose names begin with [`LORA`](crate::nn::LORA).
    //!
    //! ```
    //! use tern_engine::nn::{
    //!     Generator, LORA, LayerSpec, LoraConfig, Mode, ModelSpec, Sampler,
    //! };
    //! use tern_engine::{
    //!     Arena, Batching, Device, Flat, Graph, LoadOptions, Optimizer, TextData, TextWindows,
    //!     Trainable, Training, load_weights,
    //! };
    //!
    //! # fn main() -> Result<(), Box<dyn std::error::Error>> {
    //! # let folder = tempfile::tempdir()?;
    //! # let weights = folder.path().join("model.safetensors");
    //! // A small one; that of a real one is a page.
    //! let config = r#"{
    //!     "model_type": "llama", "vocab_size": 9, "hidden_size": 16, "intermediate_size": 24,
    //!     "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    //!     "head_dim": 8, "rms_norm_eps": 1e-5, "tie_word_embeddings": true
    //! }"#;
    //! let mut spec = ModelSpec::llama(config)?;
    //! # let saved = spec.build()?.0;
    //! # tern_engine::save_model(&weights, &saved, &saved.initial(1))?;
    //! // Adapters of rank 2 on the projections of queries and values.
    //! if let LayerSpec::Decoder(decoder) = &mut spec.layers[1].1 {
    //!     decoder.lora = Some(LoraConfig::new(2));
    //! }
    //! let (parameters, model) = spec.build()?;
    //! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
    //! let mut flat = parameters.initial(1);
    //! // The file has no adapters: they start so that they change nothing.
    //! let report = load_weights(&weights, &parameters, &mut flat, &LoadOptions::new().strict(false))?;
    //! assert!(report.missing.iter().all(|name| name.starts_with(LORA)));
    //!
    //! # #[cfg(feature = "blocking")] {
    //! arena.write(Flat::Parameters, 0, &flat)?;
    //! // Training of the adapters alone, on a text that counts to eight again and again.
    //! let text: Vec<u32> = (0..400).map(|i| i % 9).collect();
    //! let data = TextData::upload(arena.device(), &[text], TextWindows::new(9, 12))?;
    //! let mut graph = Graph::new(&arena);
    //! let (inputs, targets) = graph.text_batch(&data, &Batching::shuffled(4))?;
    //! let logits = model.forward(&mut graph, inputs, Mode::Train)?.output;
    //! let loss = graph.cross_entropy(logits, targets)?;
    //! let adapters = Trainable::Prefixes(vec![LORA.into()]);
    //! let training = Training::new(Optimizer::adamw(), 0.01).trainable(adapters);
    //! graph.train(loss, &training)?.run(20)?;
    //!
    //! // As a part of the weights they cost nothing any more.
    //! let mut flat = arena.read(Flat::Parameters, 0)?;
    //! model.merge_adapters(&parameters, &mut flat)?;
    //! arena.write(Flat::Parameters, 0, &flat)?;
    //! let mut generator = Generator::new(&arena, &model, 1, 32)?;
    //! let mut sampler = Sampler::new(1).temperature(0.5);
    //! let texts = generator.generate(&[&[0, 1, 2]], 8, |_, logits| Some(sampler.draw(logits)))?;
    //! assert_eq!(texts[0].len(), 8);
    //! # }
    //! # Ok(())
    //! # }
    //! ```
}

pub mod kernel {
    //! An op of one's own.
    //!
    //! `examples/examples/custom_op.rs` is a whole program: a kernel's WGSL, its reference in plain
    //! Rust, its declaration by [`tern_shaders::kernel!`], and an op with its gradient, on the CPU
    //! and on GPUs. What it comes down to is [`Graph::dispatch`](crate::Graph::dispatch), which
    //! takes any [`Kernel`](tern_shaders::Kernel), and
    //! [`Graph::on_backward`](crate::Graph::on_backward). Here with a kernel that is there
    //! already:
    //!
    //! ```
    //! use tern_engine::{Arena, Data, Device, Element, Graph, Init, Operand, Parameters};
    //! use tern_shaders::kernels::update::{DIFFERENCE, Difference};
    //!
    //! # fn main() -> tern_engine::Result<()> {
    //! # let mut parameters = Parameters::new();
    //! # parameters.add("unused", &[1], Init::Zeros)?;
    //! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
    //! let mut graph = Graph::new(&arena);
    //! let [x, base] = ["x", "base"].map(|name| graph.input(name, &[3], Element::F32));
    //! let y = graph.tensor("difference", &[3], Element::F32);
    //! graph.dispatch(&DIFFERENCE, &Difference { n: 3 }, &[x, base, y].map(Operand::from));
    //! graph.keep(y);
    //! let mut plan = graph.forward()?;
    //! plan.write(x, &Data::F32(vec![3.0, 2.0, 1.0]))?;
    //! plan.write(base, &Data::F32(vec![1.0, 1.0, 1.0]))?;
    //! plan.run(1)?;
    //! assert_eq!(plan.read(y)?, Data::F32(vec![2.0, 1.0, 0.0]));
    //! # Ok(())
    //! # }
    //! ```
}

pub mod from_pytorch {
    //! Coming from PyTorch.
    //!
    //! | PyTorch | here |
    //! |---|---|
    //! | `nn.Module` | [`nn::ModelSpec`](crate::nn::ModelSpec), or ops on a [`Graph`](crate::Graph) |
    //! | `loss.backward(); optimizer.step()` | [`Graph::train`](crate::Graph::train), once; then [`Plan::run`](crate::Plan::run) |
    //! | `model.eval()` | [`Mode::Evaluate`](crate::nn::Mode::Evaluate) when recording |
    //! | `requires_grad_(False)` | [`Training::trainable`](crate::Training::trainable) |
    //! | `DataLoader(shuffle=True)` | [`Batching::shuffled`](crate::Batching::shuffled) on data that stays on the device |
    //! | `CrossEntropyLoss(weight, ignore_index, label_smoothing)` | [`Graph::cross_entropy_with`](crate::Graph::cross_entropy_with), [`targets`](crate::targets) |
    //! | `clip_grad_norm_` | [`Training::clip_norm`](crate::Training::clip_norm) |
    //! | `lr_scheduler` | [`Schedule`](crate::Schedule) |
    //! | `state_dict`, `save_file` | [`save_model`](crate::save_model), [`load_model`](crate::load_model) |
    //! | `torch.autograd.detect_anomaly` | [`Plan::find_not_finite_async`](crate::Plan::find_not_finite_async), after the fact |
    //!
    //! Names, shapes, gate order and defaults are PyTorch's; layers say where one differs. Sequences
    //! are time-major, `[T, B]`, as with `batch_first=False`.
    //!
    //! ```
    //! use tern_engine::ops::loss::CrossEntropy;
    //! use tern_engine::{Arena, Data, Device, Element, Graph, Init, Parameters, targets};
    //!
    //! # fn main() -> tern_engine::Result<()> {
    //! # let mut parameters = Parameters::new();
    //! # parameters.add("unused", &[1], Init::Zeros)?;
    //! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
    //! // F.cross_entropy(x, torch.tensor([1, -100]), label_smoothing=0.1)
    //! let mut graph = Graph::new(&arena);
    //! let x = graph.input("x", &[2, 3], Element::F32);
    //! let t = graph.input("t", &[2], Element::U32);
    //! let loss = graph.cross_entropy_with(x, t, &CrossEntropy::new().label_smoothing(0.1))?;
    //! graph.keep(loss);
    //! let mut plan = graph.forward()?;
    //! plan.write(x, &Data::F32(vec![1.0, 2.0, 3.0, 0.5, 0.5, 0.5]))?;
    //! plan.write(t, &Data::U32(targets(&[1, -100], 3, -100)?))?;
    //! plan.run(1)?;
    //! let loss = plan.read(loss)?.floats()?[0];
    //! assert!((loss - 1.407_606).abs() < 1e-5, "{loss}");
    //! # Ok(())
    //! # }
    //! ```
}

pub mod trouble {
    //! A loss that is no number.
    //!
    //! A replica whose loss is NaN, or whose gradient's norm is not finite where gradients are
    //! clipped, rests with the parameters from before that step; the others go on.
    //!
    //! ```
    //! use tern_engine::{
    //!     Activation, Arena, Data, Device, Element, Graph, Init, Optimizer, Parameters, Training,
    //! };
    //!
    //! # fn main() -> tern_engine::Result<()> {
    //! let mut parameters = Parameters::new();
    //! let weight = parameters.add("weight", &[1, 1], Init::Constant(1.0))?;
    //! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
    //! let mut graph = Graph::new(&arena);
    //! let x = graph.input("x", &[1, 1], Element::F32);
    //! let y = graph.linear(x, &weight, None, Activation::Identity)?;
    //! let square = graph.multiply(y, y)?;
    //! let loss = graph.sum(square);
    //! // A rate at which the weight grows a million times a step.
    //! let training = Training::new(Optimizer::sgd(), 0.5).clip_norm(f64::MAX);
    //! let mut plan = graph.train(loss, &training)?;
    //! plan.write(x, &Data::F32(vec![1e3]))?;
    //!
    //! let losses = plan.run(100)?;
    //! let step = losses.failed[0];
    //! assert_eq!(step, Some(4));
    //! if let Some(found) = plan.find_not_finite(0)? {
    //!     println!("step {step:?}: {found}");
    //!     assert_eq!(found.kernel.as_deref(), Some("pointwise/binary_forward"));
    //! }
    //! # Ok(())
    //! # }
    //! ```
}
