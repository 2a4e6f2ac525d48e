//! A decoder of Llama's shape, its logits by the embedding's table.

use burn::module::Module;
use burn::nn::{
    Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig, RotaryEncoding,
    RotaryEncodingConfig,
};
use burn::prelude::*;
use burn::tensor::activation::silu;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;

#[derive(Module, Debug)]
struct Block {
    norms: Vec<RmsNorm>,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
    head: usize,
}

impl Block {
    fn heads(&self, projection: &Linear, x: Tensor<3>) -> Tensor<4> {
        let [batch, steps, _] = x.dims();
        let y = projection.forward(x);
        let heads = y.dims()[2] / self.head;
        y.reshape([batch, steps, heads, self.head]).swap_dims(1, 2)
    }

    fn forward(&self, x: Tensor<3>, rotary: &RotaryEncoding) -> Tensor<3> {
        let normal = self.norms[0].forward(x.clone());
        let [query, key, value] =
            [&self.query, &self.key, &self.value].map(|p| self.heads(p, normal.clone()));
        let (query, key) = (rotary.forward(query), rotary.forward(key));
        let [batch, heads, steps, width] = query.dims();
        let shared = |x: Tensor<4>| {
            let groups = x.dims()[1];
            x.reshape([batch, groups, 1, steps, width])
                .expand([batch, groups, heads / groups, steps, width])
                .reshape([batch, heads, steps, width])
        };
        let causal = AttentionModuleOptions { is_causal: true, ..Default::default() };
        let y = attention(query, shared(key), shared(value), None, None, causal);
        let y = y.swap_dims(1, 2).reshape([batch, steps, heads * width]);
        let x = x + self.out.forward(y);
        let normal = self.norms[1].forward(x.clone());
        let y = silu(self.gate.forward(normal.clone())) * self.up.forward(normal);
        x + self.down.forward(y)
    }
}

#[derive(Module, Debug)]
pub struct Decoder {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    rotary: RotaryEncoding,
}

impl Decoder {
    /// SmolLM2-135M's shape, for texts of so many tokens.
    pub fn smollm2(vocabulary: usize, steps: usize, device: &Device) -> Self {
        let (width, head, heads, groups, hidden) = (576, 64, 9, 3, 1536);
        let linear = |i, o| LinearConfig::new(i, o).with_bias(false).init(device);
        let norm = || RmsNormConfig::new(width).init(device);
        let block = || Block {
            norms: vec![norm(), norm()],
            query: linear(width, heads * head),
            key: linear(width, groups * head),
            value: linear(width, groups * head),
            out: linear(heads * head, width),
            gate: linear(width, hidden),
            up: linear(width, hidden),
            down: linear(hidden, width),
            head,
        };
        Decoder {
            embedding: EmbeddingConfig::new(vocabulary, width).init(device),
            blocks: (0..30).map(|_| block()).collect(),
            norm: norm(),
            rotary: RotaryEncodingConfig::new(steps, head).with_theta(1e5).init(device),
        }
    }

    /// Logits of tokens `[batch, steps]`, a row a token.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let blocks = self.blocks.iter();
        let x = blocks.fold(self.embedding.forward(tokens), |x, b| b.forward(x, &self.rotary));
        let [batch, steps, width] = x.dims();
        let x = self.norm.forward(x).reshape([batch * steps, width]);
        x.matmul(self.embedding.weight.val().transpose())
    }
}
