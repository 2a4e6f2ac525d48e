//! Attention, rotary position embeddings, and rows stored where words say.
//!
//! ```rust
//! # use tern_engine::{Arena, Device, Init, Parameters};
//! use tern_engine::ops::attention::AttentionOptions;
//! use tern_engine::{Data, Element, Graph};
//!
//! # fn main() -> tern_engine::Result<()> {
//! # let mut parameters = Parameters::new();
//! # parameters.add("weight", &[1], Init::Zeros)?;
//! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! // Two positions, one sample, one head of four numbers; all scores are zero.
//! let q = graph.constant(0.0, &[2, 1, 1, 4]);
//! let v = graph.input("values", &[2, 1, 1, 4], Element::F32);
//! let y = graph.attention(q, q, v, &AttentionOptions::causal())?;
//! graph.keep(y);
//! let mut plan = graph.forward()?;
//! plan.write(v, &Data::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]))?;
//! plan.run(1)?;
//! // The first position sees itself, the second one both.
//! assert_eq!(plan.read(y)?, Data::F32(vec![1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0]));
//! # Ok(())
//! # }
//! ```

mod cases;
mod rotary;
#[cfg(test)]
mod tests;

use tern_shaders::Element;
use tern_shaders::kernels::attention::{
    Attention, FORWARD, KEY_BACKWARD, MAX_HEAD, QUERY_BACKWARD, ROW_SUMS, RowSums,
};

use crate::{Data, Error, Graph, Result, Tensor};

pub use cases::cases;

/// The keys that a query attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keys {
    /// All of them.
    All,
    /// Those up to its own position; the last query's is that of the last key.
    Causal,
    /// Those in its window: words `[T, B, 2]`, the first key and the end. A window that is empty
    /// gives zeros; an end past the keys counts as theirs. So keys are left out that are padding,
    /// or of another text.
    Windows(Tensor),
}

/// How [`Graph::attention`] weighs keys.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// The keys that a query attends to.
    pub keys: Keys,
    /// Factor of the scores; 1 / √D if nothing is said.
    pub scale: Option<f32>,
}

impl AttentionOptions {
    /// With the keys that a query attends to.
    pub fn new(keys: Keys) -> Self {
        AttentionOptions { keys, scale: None }
    }

    /// Each query attends to the keys up to its own position.
    pub fn causal() -> Self {
        Self::new(Keys::Causal)
    }

    /// With a factor of the scores.
    pub fn scale(mut self, scale: impl Into<Option<f32>>) -> Self {
        self.scale = scale.into();
        self
    }
}

impl Graph {
    /// Scaled dot-product attention, y = softmax(scale · q kᵀ) v, in one kernel that stores no
    /// scores. Shapes: `q` `[T, B, H, D]`, `k` and `v` `[S, B, G, D]`, result `[T, B, H, D]`:
    /// positions, samples, heads; H / G heads in a row share one of keys and values (grouped
    /// queries; Ainslie et al. 2023).
    ///
    /// # Errors
    /// [`Error::Shape`] unless the shapes go together, H is a multiple of G, and D is a multiple of
    /// four up to 128; [`Error::Value`] for a scale that isn't finite.
    pub fn attention(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        options: &AttentionOptions,
    ) -> Result<Tensor> {
        let mut p = self.attention_sizes([q, k, v])?;
        p.scale = options.scale.unwrap_or(1.0 / (p.size as f32).sqrt());
        if !p.scale.is_finite() {
            return Err(Error::value("attention's scale", p.scale, "a finite number"));
        }
        let window = self.windows(&p, options.keys)?;
        // Each has a gradient of its own, which one dispatch writes.
        let v = if self.root(k) == self.root(v) { self.scale(v, 1.0) } else { v };
        let shape = self.shape(q).to_vec();
        let y = self.tensor("attention", &shape, Element::F32);
        let log_sum = self.tensor("log sum", &shape[..3], Element::F32);
        let inputs = [q, k, v, window].map(Into::into);
        let outputs = [y.into(), log_sum.into()];
        self.dispatch(&FORWARD, &p, &[&inputs[..], &outputs].concat());
        self.on_backward(&[q, k, v], &[], &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            let sums = b.tensor("row sums", &[&shape[..3], &[2]].concat(), Element::F32);
            let rows = RowSums { rows: b.len(log_sum) as u32, width: p.size };
            b.dispatch(&ROW_SUMS, &rows, &[y, dy, log_sum, sums].map(Into::into));
            let inputs = [&inputs[..], &[dy.into(), sums.into()]].concat();
            if let Some((dq, first_mode)) = b.target(q) {
                let p = Attention { first_mode, ..p };
                b.dispatch(&QUERY_BACKWARD, &p, &[&inputs[..], &[dq.into()]].concat());
            }
            let targets = [k, v].map(|x| b.target(x));
            if targets != [None, None] {
                let keys = b.shape(k).to_vec();
                let [(dk, first_mode), (dv, second_mode)] = targets.map(|target| {
                    // What nobody wants is written nowhere, but bound.
                    target.unwrap_or_else(|| (b.tensor("unwanted", &keys, Element::F32), 2))
                });
                let p = Attention { first_mode, second_mode, ..p };
                let outputs = [dk.into(), dv.into()];
                b.dispatch(&KEY_BACKWARD, &p, &[&inputs[..], &outputs].concat());
            }
            Ok(())
        });
        Ok(y)
    }

    /// The sizes of queries, keys and values that go together.
    fn attention_sizes(&self, all: [Tensor; 3]) -> Result<Attention> {
        for x in all {
            self.check_floats("attention", x)?;
        }
        let [q, k, v] = all.map(|x| self.shape(x));
        let wrong = |what: &str| {
            Err(Error::shape("attention", format!("q {q:?}, k {k:?}, v {v:?}: {what}")))
        };
        let (&[queries, batch, heads, size], &[keys, samples, groups, width]) = (q, k) else {
            return wrong("expected [T, B, H, D] and [S, B, G, D]");
        };
        if k != v || samples != batch || width != size || !heads.is_multiple_of(groups) {
            return wrong("expected k and v alike, q's batch and head, and heads that divide q's");
        }
        if !size.is_multiple_of(4) || size > MAX_HEAD as usize {
            let expected =
                format!("expected heads of a multiple of four numbers, {MAX_HEAD} at most");
            return wrong(&expected);
        }
        let [queries, keys, batch, heads, group, size] =
            [queries, keys, batch, heads, heads / groups, size].map(|n| n as u32);
        Ok(Attention { queries, keys, batch, heads, group, size, ..Attention::default() })
    }

    /// The windows that say which keys each query attends to.
    fn windows(&mut self, p: &Attention, keys: Keys) -> Result<Tensor> {
        let shape = [p.queries as usize, p.batch as usize, 2];
        if let Keys::Windows(window) = keys {
            self.check_words("attention", window)?;
            if self.shape(window) != shape {
                let what = format!("windows {:?}, expected {shape:?}", self.shape(window));
                return Err(Error::shape("attention", what));
            }
            return Ok(window);
        }
        if keys == Keys::Causal && p.queries > p.keys {
            let what = format!("{} queries after {} keys", p.queries, p.keys);
            return Err(Error::shape("causal attention", what));
        }
        let end = |query: u32| match keys {
            Keys::Causal => p.keys - p.queries + query + 1,
            _ => p.keys,
        };
        self.windows_to(shape, end)
    }

    /// The windows of causal order, words `[T, B, 2]`: what [`Keys::Causal`] makes for each
    /// attention, for several of them.
    ///
    /// # Errors
    /// As [`Graph::values`].
    pub fn causal_windows(&mut self, steps: usize, batch: usize) -> Result<Tensor> {
        self.windows_to([steps, batch, 2], |query| query + 1)
    }

    /// Windows from the first key on, the same for each sample.
    fn windows_to(&mut self, shape: [usize; 3], end: impl Fn(u32) -> u32) -> Result<Tensor> {
        let [queries, batch, _] = shape;
        let words = (0..queries as u32).flat_map(|query| [0, end(query)].repeat(batch)).collect();
        self.values("windows", &shape, Data::U32(words))
    }
}
