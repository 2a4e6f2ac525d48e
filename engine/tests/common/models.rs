//! Models of the sizes that the benches time.

use tern_engine::nn::{Conv2dConfig, Input, LayerSpec, Mode, ModelSpec};
use tern_engine::{
    Activation, Arena, Batching, Device, Graph, Optimizer, Plan, Result, RowData, Tensor, TextData,
    TextWindows, Training,
};

use super::{floats, tokens};

/// A character LSTM over `steps` characters in batches of 10, its loss taken at every position.
pub fn char_lstm(device: &Device, hidden: usize, steps: usize) -> Plan {
    language_model(device, [90, 8, hidden, 2], steps, 10)
}

/// A language model of `[vocabulary, dimension, hidden, layers]`.
pub fn language_model(device: &Device, sizes: [usize; 4], steps: usize, batch: usize) -> Plan {
    let [vocabulary, dimension, hidden, layers] = sizes;
    let spec = ModelSpec::language_model(vocabulary, dimension, hidden, layers);
    let text = tokens(2 * batch * steps + 1, vocabulary as u32, 1);
    let data = TextData::upload(device, &[text], TextWindows::new(vocabulary, steps)).unwrap();
    train(device, &spec, |graph| graph.text_batch(&data, &Batching::in_order(batch)))
}

/// A classifier of images into ten classes.
pub fn classifier(device: &Device, spec: &ModelSpec, batch: usize) -> Plan {
    let features = floats(2 * batch * 784, 1);
    let labels = tokens(2 * batch, 10, 2);
    let data = RowData::upload(device, &features, 784, &labels, 10).unwrap();
    train(device, spec, |graph| graph.row_batch(&data, &Batching::in_order(batch)))
}

fn train(
    device: &Device,
    spec: &ModelSpec,
    batch: impl FnOnce(&mut Graph) -> Result<(Tensor, Tensor)>,
) -> Plan {
    let (parameters, model) = spec.build().unwrap();
    let arena = Arena::new(device, &parameters, &[1]).unwrap();
    let mut graph = Graph::new(&arena);
    let (inputs, targets) = batch(&mut graph).unwrap();
    let forward = model.forward(&mut graph, inputs, Mode::Train).unwrap();
    let loss = graph.cross_entropy(forward.output, targets).unwrap();
    graph.train(loss, &Training::new(Optimizer::sgd(), 0.1)).unwrap()
}

/// Two convolutions of 3 × 3, each pooled, and an output layer.
pub fn convolutions() -> ModelSpec {
    let convolution = |outputs| {
        LayerSpec::Conv2d(Conv2dConfig::new(outputs, 3).padding(1).activation(Activation::Relu))
    };
    let pool = LayerSpec::MaxPool2d { kernel: 2.into(), stride: 2.into(), padding: 0.into() };
    let layers = [
        convolution(16),
        pool,
        convolution(32),
        pool,
        LayerSpec::Flatten,
        LayerSpec::Linear { outputs: 10, activation: Activation::Identity },
    ];
    let named = |(i, layer): (usize, LayerSpec)| (i.to_string(), layer);
    ModelSpec {
        input: Input::Image { channels: 1, height: 28, width: 28 },
        layers: layers.into_iter().enumerate().map(named).collect(),
    }
}
