//! Models whose parameters are registered, and how they are recorded.

use tern_shaders::{Activation, Element};

use super::decoder::Cache;
use super::{
    BasicBlock, BatchNorm, Conv2d, ConvTranspose2d, Decoder, Dropout, Embedding, GroupNorm, Gru,
    Input, LayerNorm, Linear, Lstm, Mode, RmsNorm,
};
use crate::checkpoint::check_length;
use crate::ops::convolution::Window;
use crate::ops::reduce::Reduction;
use crate::{Error, Graph, Param, Parameters, Precision, Result, Tensor};

#[derive(Clone, Debug)]
pub(super) enum Layer {
    Embedding(Embedding),
    Lstm(Lstm),
    Gru(Gru),
    Linear(Linear),
    Conv2d(Conv2d),
    ConvTranspose2d(ConvTranspose2d),
    MaxPool2d([usize; 2], Window),
    AveragePool2d([usize; 2], Window),
    Flatten,
    GlobalAveragePool,
    Activation(Activation),
    BatchNorm(BatchNorm),
    GroupNorm(GroupNorm),
    BasicBlock(Box<BasicBlock>),
    LayerNorm(LayerNorm),
    RmsNorm(RmsNorm),
    Decoder(Decoder),
    /// Logits by the table of the embedding.
    TiedHead(Param),
    Dropout(Dropout),
}

/// A model whose parameters are registered, ready to be recorded in any number of graphs.
#[derive(Clone, Debug)]
pub struct Model {
    pub(super) input: Input,
    pub(super) layers: Vec<(String, Layer)>,
    /// Whether blocks are computed once more in a backward pass.
    pub(super) recomputes: bool,
    /// What the products of linear layers multiply.
    pub(super) precision: Precision,
}

/// What [`Model::forward`] recorded.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The last layer's output.
    pub output: Tensor,
    /// Output of the layer before the last.
    pub features: Tensor,
    /// Where the mode carries state, h and c of each LSTM layer and h of each GRU layer.
    pub state: Vec<Tensor>,
}

impl Model {
    /// What it takes.
    pub fn input(&self) -> Input {
        self.input
    }

    /// The same model, whose blocks, a decoder's and a ResNet's, are [recomputed](Graph::recomputed) in
    /// the backward pass, if asked: of each, what it was given is kept, and activations take the memory of
    /// one. A step costs a forward pass more, and its numbers stay the same.
    pub fn recomputing(mut self, blocks: bool) -> Self {
        self.recomputes = blocks;
        self
    }

    /// The same model, whose linear layers, a decoder's among them, multiply in a
    /// [precision](Graph::in_precision).
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Records the layers on an input: `[T, B]` words for tokens, `[B, width]` floats
    /// otherwise.
    ///
    /// # Errors
    /// [`Error::Shape`] for another input.
    pub fn forward(&self, graph: &mut Graph, input: Tensor, mode: Mode) -> Result<Forward> {
        self.record(graph, input, mode, None)
    }

    /// Records the layers of a decoder on tokens `[T, B]` that come after those whose keys and
    /// values are in a cache; gives the logits.
    pub(super) fn forward_after(
        &self,
        graph: &mut Graph,
        input: Tensor,
        cache: &Cache,
    ) -> Result<Tensor> {
        let decoders = self.layers.iter().filter(|(_, layer)| matches!(layer, Layer::Decoder(_)));
        if decoders.count() != 1 {
            return Err(Error::value("layers of the model", "others", "one decoder among them"));
        }
        Ok(self.record(graph, input, Mode::Evaluate, Some(cache))?.output)
    }

    /// Adds low-rank adapters to the weights that they adapt, in a flat vector, and sets them to
    /// zero: the model computes what it did.
    ///
    /// # Errors
    /// [`Error::Shape`] if `flat` has another length than the layout.
    pub fn merge_adapters(&self, parameters: &Parameters, flat: &mut [f32]) -> Result<()> {
        check_length(parameters, flat.len())?;
        for (_, layer) in &self.layers {
            if let Layer::Decoder(decoder) = layer {
                decoder.merge(flat);
            }
        }
        Ok(())
    }

    fn record(
        &self,
        graph: &mut Graph,
        input: Tensor,
        mode: Mode,
        cache: Option<&Cache>,
    ) -> Result<Forward> {
        graph.in_precision(self.precision, |graph| self.record_layers(graph, input, mode, cache))
    }

    fn record_layers(
        &self,
        graph: &mut Graph,
        input: Tensor,
        mode: Mode,
        cache: Option<&Cache>,
    ) -> Result<Forward> {
        let mut x = match (self.input, graph.shape(input).to_vec().as_slice()) {
            (Input::Tokens { .. }, [_, _]) if graph.element(input) == Element::U32 => input,
            (Input::Features { width }, [_, last]) if *last == width => input,
            (Input::Image { channels, height, width }, [batch, _]) => {
                graph.reshape(input, &[*batch, channels, height, width])?
            }
            (expected, shape) => {
                let what = format!("input {shape:?}, expected {expected:?}");
                return Err(Error::shape("model", what));
            }
        };
        let (mut features, mut state) = (x, Vec::new());
        for (name, layer) in &self.layers {
            features = x;
            x = graph.scoped(name, |graph| -> Result<Tensor> {
                Ok(match layer {
                    Layer::Embedding(layer) => layer.forward(graph, x)?,
                    Layer::Lstm(layer) => {
                        let (y, carried) = layer.forward(graph, x, mode)?;
                        state.extend(carried.into_iter().flat_map(|(h, c)| [h, c]));
                        y
                    }
                    Layer::Gru(layer) => {
                        let (y, carried) = layer.forward(graph, x, mode)?;
                        state.extend(carried);
                        y
                    }
                    Layer::Linear(layer) => layer.forward(graph, x)?,
                    Layer::Conv2d(layer) => layer.forward(graph, x)?,
                    Layer::ConvTranspose2d(layer) => layer.forward(graph, x)?,
                    Layer::MaxPool2d(kernel, window) => graph.max_pool2d(x, *kernel, *window)?,
                    Layer::AveragePool2d(kernel, window) => {
                        graph.average_pool2d(x, *kernel, *window)?
                    }
                    Layer::Flatten => {
                        let [batch, rest @ ..] = graph.shape(x) else { return Ok(x) };
                        let shape = [*batch, rest.iter().product()];
                        graph.reshape(x, &shape)?
                    }
                    Layer::GlobalAveragePool => graph.reduce(x, &[2, 3], Reduction::Mean)?,
                    Layer::Activation(kind) => graph.activation(x, *kind),
                    Layer::BatchNorm(layer) => layer.forward(graph, x, mode)?,
                    Layer::GroupNorm(layer) => layer.forward(graph, x)?,
                    Layer::BasicBlock(layer) => graph
                        .recomputed_if(self.recomputes, |graph| layer.forward(graph, x, mode))?,
                    Layer::LayerNorm(layer) => layer.forward(graph, x)?,
                    Layer::RmsNorm(layer) => layer.forward(graph, x)?,
                    Layer::Decoder(_) if mode.carries() => {
                        let expected = "one that carries no state; `Generator` keeps a cache";
                        return Err(Error::value("mode", format!("{mode:?}"), expected));
                    }
                    Layer::Decoder(layer) => {
                        layer.forward_after(graph, x, cache, self.recomputes)?
                    }
                    Layer::TiedHead(table) => graph.linear(x, table, None, Activation::Identity)?,
                    Layer::Dropout(layer) => layer.forward(graph, x, mode)?,
                })
            })?;
        }
        Ok(Forward { output: x, features, state })
    }
}
