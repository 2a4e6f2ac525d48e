//! Text generation with a cache of keys and values.

use super::decoder::Cache;
use super::{Input, Model};
use crate::{Arena, Data, Element, Error, Graph, Plan, Result, Tensor};

/// Texts that a transformer decoder reads side by side, token by token, by the weights that are in
/// the arena at the time. Keys and values of what was read stay on the device.
///
/// ```
/// use tern_engine::nn::{DecoderConfig, Generator, ModelSpec, Sampler};
/// use tern_engine::{Arena, Device};
///
/// # fn main() -> tern_engine::Result<()> {
/// let spec = ModelSpec::decoder(27, 16, DecoderConfig::new(1, 2, 8, 32), true);
/// let (parameters, model) = spec.build()?;
/// let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
/// // Two texts of at most 64 tokens.
/// let mut generator = Generator::new(&arena, &model, 2, 64)?;
/// # #[cfg(feature = "blocking")] {
/// let mut sampler = Sampler::new(7).top_k(5);
/// let texts = generator.generate(&[&[3, 1, 4], &[1]], 10, |_, logits| Some(sampler.draw(logits)))?;
/// assert_eq!([texts[0].len(), texts[1].len()], [10, 10]);
/// # }
/// # Ok(())
/// # }
/// ```
pub struct Generator {
    plan: Plan,
    tokens: Tensor,
    cache: Cache,
    logits: Tensor,
    vocabulary: usize,
    /// Tokens read of each text.
    lengths: Vec<usize>,
}

impl Generator {
    /// For so many texts of at most `capacity` tokens, prompts included.
    ///
    /// # Errors
    /// [`Error::Value`] for a model that isn't a decoder of tokens, for no texts or tokens, or an
    /// arena of several replicas.
    pub fn new(arena: &Arena, model: &Model, batch: usize, capacity: usize) -> Result<Self> {
        let Input::Tokens { vocabulary } = model.input() else {
            let given = format!("{:?}", model.input());
            return Err(Error::value("input of the model", given, "tokens"));
        };
        if arena.replicas() != 1 {
            return Err(Error::value("replicas", arena.replicas(), "1"));
        }
        if batch == 0 || capacity == 0 {
            let given = format!("{batch} of {capacity} tokens");
            return Err(Error::value("texts", given, "at least one of one"));
        }
        let mut graph = Graph::new(arena);
        let tokens = graph.input("tokens", &[1, batch], Element::U32);
        let cache = Cache::new(&mut graph, [1, batch], capacity);
        let output = model.forward_after(&mut graph, tokens, &cache)?;
        let logits = graph.keep(output);
        let (plan, lengths) = (graph.forward()?, vec![0; batch]);
        Ok(Generator { plan, tokens, cache, logits, vocabulary, lengths })
    }

    /// Tokens read of each text so far.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Forgets all texts.
    pub fn clear(&mut self) {
        self.lengths.fill(0);
    }

    /// Goes on by a token of each text that has one, and gives the logits of the next one:
    /// `[B, vocabulary]`, those of texts without a token being of no meaning.
    ///
    /// # Errors
    /// [`Error::Value`] for another number of texts, a token past the vocabulary, or a text that is
    /// full; device errors.
    pub async fn read_async(&mut self, tokens: &[Option<u32>]) -> Result<Vec<f32>> {
        let batch = self.lengths.len();
        if tokens.len() != batch {
            return Err(Error::value("texts", tokens.len(), batch.to_string()));
        }
        let capacity = self.cache.capacity;
        for (text, token) in tokens.iter().enumerate() {
            let Some(token) = token else { continue };
            if *token as usize >= self.vocabulary {
                let expected = format!("below {}", self.vocabulary);
                return Err(Error::value(format!("token of text {text}"), token, expected));
            }
            if self.lengths[text] == capacity {
                let expected = format!("at most {capacity}");
                return Err(Error::value(format!("tokens of text {text}"), capacity + 1, expected));
            }
        }
        // A text without a token attends to nothing and stores nothing.
        let at = |text: usize| tokens[text].map(|_| self.lengths[text] as u32);
        let texts = 0..batch;
        let positions = texts.clone().map(|text| at(text).unwrap_or(0)).collect();
        let row = |text: usize| at(text).map_or(u32::MAX, |at| at * batch as u32 + text as u32);
        let rows = texts.clone().map(row).collect();
        let windows = texts.flat_map(|text| [0, at(text).map_or(0, |at| at + 1)]).collect();
        let words = tokens.iter().map(|token| token.unwrap_or(0)).collect();
        for (tensor, words) in [
            (self.tokens, words),
            (self.cache.positions, positions),
            (self.cache.rows, rows),
            (self.cache.windows, windows),
        ] {
            self.plan.write_async(tensor, &Data::U32(words)).await?;
        }
        self.plan.run_async(1).await?;
        for (length, token) in self.lengths.iter_mut().zip(tokens) {
            *length += usize::from(token.is_some());
        }
        self.plan.read_async(self.logits).await?.floats()
    }

    /// Reads a prompt a text, then lets each go on by up to `most` tokens: `choose` is given the
    /// number of the text and the logits of its next token, and says which it is, or `None` where
    /// the text ends. Gives the tokens after each prompt. What was read before is forgotten.
    ///
    /// # Errors
    /// [`Error::Value`] for another number of prompts, an empty one, or one that is too long with
    /// what follows; as [`Generator::read_async`].
    pub async fn generate_async(
        &mut self,
        prompts: &[&[u32]],
        most: usize,
        mut choose: impl FnMut(usize, &[f32]) -> Option<u32>,
    ) -> Result<Vec<Vec<u32>>> {
        let capacity = self.cache.capacity;
        for (text, prompt) in prompts.iter().enumerate() {
            // The last token needn't be read.
            if prompt.is_empty() || prompt.len() + most > capacity + 1 {
                let expected = format!("1 to {}", (capacity + 1).saturating_sub(most));
                return Err(Error::value(
                    format!("tokens of prompt {text}"),
                    prompt.len(),
                    expected,
                ));
            }
        }
        self.clear();
        let mut texts = vec![Vec::new(); prompts.len()];
        let mut next: Vec<Option<u32>> =
            prompts.iter().map(|prompt| prompt.first().copied()).collect();
        while most > 0 && next.iter().any(Option::is_some) {
            let logits = self.read_async(&next).await?;
            for (text, logits) in logits.chunks_exact(self.vocabulary).enumerate() {
                if next[text].is_none() {
                    continue;
                }
                next[text] = match prompts[text].get(self.lengths[text]) {
                    Some(token) => Some(*token),
                    None => choose(text, logits),
                };
                if self.lengths[text] < prompts[text].len() {
                    continue;
                }
                texts[text].extend(next[text]);
                if texts[text].len() == most {
                    next[text] = None;
                }
            }
        }
        Ok(texts)
    }

    /// [`Generator::read_async`], waiting.
    ///
    /// # Errors
    /// As of it.
    #[cfg(feature = "blocking")]
    pub fn read(&mut self, tokens: &[Option<u32>]) -> Result<Vec<f32>> {
        let device = self.plan.arena().device().clone();
        device.wait(self.read_async(tokens))
    }

    /// [`Generator::generate_async`], waiting.
    ///
    /// # Errors
    /// As of it.
    #[cfg(feature = "blocking")]
    pub fn generate(
        &mut self,
        prompts: &[&[u32]],
        most: usize,
        choose: impl FnMut(usize, &[f32]) -> Option<u32>,
    ) -> Result<Vec<Vec<u32>>> {
        let device = self.plan.arena().device().clone();
        device.wait(self.generate_async(prompts, most, choose))
    }
}
