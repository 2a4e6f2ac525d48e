//! Transformer decoders of Llama's shape: RMS norms before attention and before a SwiGLU, rotary
//! positions, grouped queries, no biases.

use serde::{Deserialize, Serialize};
use tern_shaders::kernels::attention::MAX_HEAD;

use super::{Linear, LinearConfig, LoraConfig, RmsNorm};
use crate::ops::attention::{AttentionOptions, Keys};
use crate::{Element, Error, Graph, Init, Parameters, Result, Tensor};

/// Deviation of the weights' starting values, as Llama has it.
pub(super) const DEVIATION: f32 = 0.02;

/// A [`Decoder`]. Missing numbers are Llama's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DecoderConfig {
    /// Blocks.
    pub layers: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`.
    pub key_value_heads: usize,
    /// Numbers of a head: a multiple of four, at most 128.
    pub head: usize,
    /// Units of the feed-forward layers.
    pub hidden: usize,
    /// Base of the rotary embedding's angles.
    #[serde(default = "base")]
    pub base: f64,
    /// ε of the RMS norms.
    #[serde(default = "epsilon")]
    pub epsilon: f32,
    /// Low-rank adapters of the projections of queries and values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

fn base() -> f64 {
    10_000.0
}

fn epsilon() -> f32 {
    1e-5
}

impl DecoderConfig {
    /// Blocks, heads of `head` numbers each, and units of the feed-forward layers; as many heads of
    /// keys and values as of queries.
    pub fn new(layers: usize, heads: usize, head: usize, hidden: usize) -> Self {
        DecoderConfig {
            layers,
            heads,
            key_value_heads: heads,
            head,
            hidden,
            base: base(),
            epsilon: epsilon(),
            lora: None,
        }
    }

    /// With fewer heads of keys and values.
    pub fn key_value_heads(mut self, heads: usize) -> Self {
        self.key_value_heads = heads;
        self
    }

    /// With a base of the rotary embedding's angles.
    pub fn base(mut self, base: f64) -> Self {
        self.base = base;
        self
    }

    /// With an ε of the RMS norms.
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// With adapters of the projections of queries and values, or without.
    pub fn lora(mut self, lora: impl Into<Option<LoraConfig>>) -> Self {
        self.lora = lora.into();
        self
    }
}

/// A linear layer without a bias.
fn projection(
    parameters: &mut Parameters,
    name: &str,
    inputs: usize,
    outputs: usize,
) -> Result<Linear> {
    let config = LinearConfig::new(inputs, outputs).bias(false).init(Init::Normal(DEVIATION));
    Linear::new(parameters, name, config)
}

/// Where the tokens of a graph are, and the keys and values of those before them.
#[derive(Clone, Copy)]
pub(super) struct Place {
    table: Tensor,
    positions: Tensor,
    windows: Tensor,
    /// Rows of the caches that keys and values go to.
    rows: Option<Tensor>,
}

impl Place {
    /// Texts `[T, B]` that begin with their first token.
    fn of_texts(
        graph: &mut Graph,
        config: &DecoderConfig,
        [steps, batch]: [usize; 2],
    ) -> Result<Self> {
        let table = graph.rotary_table(steps, config.head, config.base)?;
        let positions = graph.positions(steps, batch)?;
        let windows = graph.causal_windows(steps, batch)?;
        Ok(Place { table, positions, windows, rows: None })
    }
}

/// The tensors that hold what texts went before: keys and values of each block, and inputs that say
/// where new tokens go.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    /// Tokens of a text, at most.
    pub capacity: usize,
    /// Words `[T, B]`: the place of each token in its text.
    pub positions: Tensor,
    /// Words `[T, B]`: the row of the caches `[capacity · B]` that it goes to.
    pub rows: Tensor,
    /// Words `[T, B, 2]`: what it attends to.
    pub windows: Tensor,
}

impl Cache {
    /// Inputs of a graph that reads `steps` tokens of each of `batch` texts.
    pub fn new(graph: &mut Graph, [steps, batch]: [usize; 2], capacity: usize) -> Self {
        let mut input = |label: &str, shape: &[usize]| graph.input(label, shape, Element::U32);
        Cache {
            capacity,
            positions: input("positions", &[steps, batch]),
            rows: input("rows", &[steps, batch]),
            windows: input("windows", &[steps, batch, 2]),
        }
    }
}

/// Causal attention of grouped queries with rotary positions: `q_proj`, `k_proj`, `v_proj`,
/// `o_proj`.
#[derive(Clone, Debug)]
pub struct CausalSelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    config: DecoderConfig,
}

impl CausalSelfAttention {
    /// Registers the projections, normal with deviation 0.02.
    ///
    /// # Errors
    /// [`Error::Value`] for heads that don't go together; as [`Parameters::add`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        dimension: usize,
        config: DecoderConfig,
    ) -> Result<Self> {
        let DecoderConfig { heads, key_value_heads, head, .. } = config;
        if key_value_heads == 0 || !heads.is_multiple_of(key_value_heads) {
            let name = format!("heads of keys and values of {name}");
            return Err(Error::value(name, key_value_heads, format!("a divisor of {heads}")));
        }
        if head == 0 || !head.is_multiple_of(4) || head > MAX_HEAD as usize {
            let expected = format!("a multiple of four, {MAX_HEAD} at most");
            return Err(Error::value(format!("numbers of a head of {name}"), head, expected));
        }
        let mut add = |part: &str, inputs, outputs| {
            projection(parameters, &format!("{name}.{part}"), inputs, outputs)
        };
        Ok(CausalSelfAttention {
            q_proj: add("q_proj", dimension, heads * head)?,
            k_proj: add("k_proj", dimension, key_value_heads * head)?,
            v_proj: add("v_proj", dimension, key_value_heads * head)?,
            o_proj: add("o_proj", heads * head, dimension)?,
            config,
        })
    }

    /// `[T, B, D]` to the same shape, each position from those up to it.
    ///
    /// # Errors
    /// [`Error::Shape`] for another input.
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        let place = Place::of_texts(graph, &self.config, steps_and_batch(graph, x)?)?;
        self.forward_at(graph, x, &place, None)
    }

    /// The same by a place, and a cache of keys and values that new ones are put into.
    fn forward_at(
        &self,
        graph: &mut Graph,
        x: Tensor,
        place: &Place,
        cache: Option<[Tensor; 2]>,
    ) -> Result<Tensor> {
        let DecoderConfig { heads, key_value_heads, head, .. } = self.config;
        let [steps, batch] = steps_and_batch(graph, x)?;
        let heads_of = |graph: &mut Graph, layer: &Linear, heads: usize| {
            let y = layer.forward(graph, x)?;
            graph.reshape(y, &[steps, batch, heads, head])
        };
        let q = heads_of(graph, &self.q_proj, heads)?;
        let q = graph.rotary(q, place.table, place.positions)?;
        let k = heads_of(graph, &self.k_proj, key_value_heads)?;
        let k = graph.rotary(k, place.table, place.positions)?;
        let v = heads_of(graph, &self.v_proj, key_value_heads)?;
        let [k, v] = match (cache, place.rows) {
            (Some([keys, values]), Some(rows)) => {
                graph.store_rows(k, rows, keys)?;
                graph.store_rows(v, rows, values)?;
                [keys, values]
            }
            _ => [k, v],
        };
        let options = AttentionOptions::new(Keys::Windows(place.windows));
        let y = graph.attention(q, k, v, &options)?;
        let y = graph.reshape(y, &[steps, batch, heads * head])?;
        self.o_proj.forward(graph, y)
    }
}

/// T and B of `[T, B, D]`.
fn steps_and_batch(graph: &Graph, x: Tensor) -> Result<[usize; 2]> {
    match *graph.shape(x) {
        [steps, batch, _] => Ok([steps, batch]),
        ref shape => Err(Error::shape("decoder", format!("input {shape:?}, expected [T, B, D]"))),
    }
}

/// y = (SiLU(x Gᵀ) · x Uᵀ) Dᵀ (Shazeer 2020): `gate_proj`, `up_proj`, `down_proj`.
#[derive(Clone, Debug)]
pub struct SwiGlu {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl SwiGlu {
    /// Registers the projections, normal with deviation 0.02.
    ///
    /// # Errors
    /// As [`Parameters::add`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        dimension: usize,
        hidden: usize,
    ) -> Result<Self> {
        let mut add = |part: &str, inputs, outputs| {
            projection(parameters, &format!("{name}.{part}"), inputs, outputs)
        };
        Ok(SwiGlu {
            gate_proj: add("gate_proj", dimension, hidden)?,
            up_proj: add("up_proj", dimension, hidden)?,
            down_proj: add("down_proj", hidden, dimension)?,
        })
    }

    /// `[..., D]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last dimension isn't `D`.
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        let gate = self.gate_proj.forward(graph, x)?;
        let up = self.up_proj.forward(graph, x)?;
        let y = graph.swiglu(gate, up)?;
        self.down_proj.forward(graph, y)
    }
}

/// A block of a decoder, each part added to what it is given: attention of the normalized input
/// (`input_layernorm`, `self_attn`), then a SwiGLU of that (`post_attention_layernorm`, `mlp`).
#[derive(Clone, Debug)]
pub struct TransformerBlock {
    input_layernorm: RmsNorm,
    self_attn: CausalSelfAttention,
    post_attention_layernorm: RmsNorm,
    mlp: SwiGlu,
}

impl TransformerBlock {
    /// Registers the parts.
    ///
    /// # Errors
    /// As [`CausalSelfAttention::new`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        dimension: usize,
        config: DecoderConfig,
    ) -> Result<Self> {
        let norm = |parameters: &mut Parameters, part: &str| {
            let norm = RmsNorm::new(parameters, &format!("{name}.{part}"), dimension)?;
            Ok::<_, Error>(norm.epsilon(config.epsilon))
        };
        let attention = format!("{name}.self_attn");
        Ok(TransformerBlock {
            input_layernorm: norm(parameters, "input_layernorm")?,
            self_attn: CausalSelfAttention::new(parameters, &attention, dimension, config)?,
            post_attention_layernorm: norm(parameters, "post_attention_layernorm")?,
            mlp: SwiGlu::new(parameters, &format!("{name}.mlp"), dimension, config.hidden)?,
        })
    }

    /// `[T, B, D]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] for another input.
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        let config = &self.self_attn.config;
        let place = Place::of_texts(graph, config, steps_and_batch(graph, x)?)?;
        self.forward_at(graph, x, &place, None)
    }

    fn forward_at(
        &self,
        graph: &mut Graph,
        x: Tensor,
        place: &Place,
        cache: Option<[Tensor; 2]>,
    ) -> Result<Tensor> {
        let normal = self.input_layernorm.forward(graph, x)?;
        let y = graph
            .scoped("self_attn", |graph| self.self_attn.forward_at(graph, normal, place, cache))?;
        let x = graph.add(x, y)?;
        let normal = self.post_attention_layernorm.forward(graph, x)?;
        let y = graph.scoped("mlp", |graph| self.mlp.forward(graph, normal))?;
        graph.add(x, y)
    }
}

/// A transformer decoder of Llama's shape, from vectors to features: blocks `layers.0`, `layers.1`,
/// … and an RMS norm `norm` after the last.
#[derive(Clone, Debug)]
pub struct Decoder {
    layers: Vec<TransformerBlock>,
    norm: RmsNorm,
    config: DecoderConfig,
}

impl Decoder {
    /// Registers the parts.
    ///
    /// # Errors
    /// [`Error::Value`] without a block; as [`CausalSelfAttention::new`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        dimension: usize,
        config: DecoderConfig,
    ) -> Result<Self> {
        if config.layers == 0 {
            return Err(Error::value(format!("layers of {name}"), 0, "at least 1"));
        }
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let name = format!("{name}.layers.{layer}");
            layers.push(TransformerBlock::new(parameters, &name, dimension, config)?);
        }
        let norm = RmsNorm::new(parameters, &format!("{name}.norm"), dimension)?;
        Ok(Decoder { layers, norm: norm.epsilon(config.epsilon), config })
    }

    /// Registers the adapters that the configuration asks for: after all other parameters, so that
    /// they lie side by side.
    pub(super) fn adapt(&mut self, parameters: &mut Parameters) -> Result<()> {
        let Some(lora) = self.config.lora else { return Ok(()) };
        for layer in &mut self.layers {
            layer.self_attn.q_proj.adapt(parameters, lora)?;
            layer.self_attn.v_proj.adapt(parameters, lora)?;
        }
        Ok(())
    }

    /// Adds adapters to the weights that they adapt, and sets them to zero.
    pub(super) fn merge(&self, flat: &mut [f32]) {
        for layer in &self.layers {
            layer.self_attn.q_proj.merge(flat);
            layer.self_attn.v_proj.merge(flat);
        }
    }

    /// `[T, B, D]` to the same shape, each position from those up to it.
    ///
    /// # Errors
    /// [`Error::Shape`] for another input.
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        self.forward_after(graph, x, None, false)
    }

    /// [`Decoder::forward`] of tokens that come after those whose keys and values are in a cache, of
    /// blocks that are recomputed in a backward pass or not.
    pub(super) fn forward_after(
        &self,
        graph: &mut Graph,
        x: Tensor,
        cache: Option<&Cache>,
        recomputes: bool,
    ) -> Result<Tensor> {
        let [steps, batch] = steps_and_batch(graph, x)?;
        let DecoderConfig { key_value_heads, head, base, .. } = self.config;
        let place = match cache {
            None => Place::of_texts(graph, &self.config, [steps, batch])?,
            Some(cache) => Place {
                table: graph.rotary_table(cache.capacity, head, base)?,
                positions: cache.positions,
                windows: cache.windows,
                rows: Some(cache.rows),
            },
        };
        let mut x = x;
        for (i, layer) in self.layers.iter().enumerate() {
            x = graph.scoped(&format!("layers.{i}"), |graph| {
                let cache = cache.map(|cache| {
                    let shape = [cache.capacity, batch, key_value_heads, head];
                    ["keys", "values"].map(|label| graph.input(label, &shape, Element::F32))
                });
                graph.recomputed_if(recomputes, |graph| layer.forward_at(graph, x, &place, cache))
            })?;
        }
        self.norm.forward(graph, x)
    }
}
