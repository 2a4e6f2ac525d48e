//! Language models token by token.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::nn::{Input, Mode, Model};
use crate::{Arena, Data, Element, Error, Graph, Plan, Result, Tensor};

/// Texts that one plan reads side by side: powers of two from the first to the last.
const BATCHES: [usize; 2] = [8, 1024];

/// Where a model is after a text: h and c of each LSTM layer, h of each GRU layer, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct TextState(Arc<[f32]>);

/// What a model expects after a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// What to go on from.
    pub state: TextState,
    /// A logit for each token of the vocabulary.
    pub logits: Vec<f32>,
}

/// A language model that reads any number of texts by one token each and says what it expects
/// next, by the weights that are in the arena at the time.
///
/// ```
/// use tern_engine::nn::{ModelSpec, TextPredictor};
/// use tern_engine::{Arena, Device};
///
/// # fn main() -> tern_engine::Result<()> {
/// let (parameters, model) = ModelSpec::language_model(27, 8, 16, 1).build()?;
/// let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
/// let mut predictor = TextPredictor::new(&arena, &model)?;
/// # #[cfg(feature = "blocking")] {
/// // Two texts; the second goes on.
/// let next = predictor.start(&[&[3, 1], &[5]])?;
/// let next = predictor.step(&[&next[1].state], &[2])?;
/// assert_eq!(next[0].logits.len(), 27);
/// # }
/// # Ok(())
/// # }
/// ```
pub struct TextPredictor {
    arena: Arena,
    model: Model,
    vocabulary: usize,
    /// By batch, made when first needed.
    steps: BTreeMap<usize, Step>,
}

/// A plan that goes on by one token.
struct Step {
    plan: Plan,
    tokens: Tensor,
    /// What layers carry, and how wide it is.
    state: Vec<(Tensor, usize)>,
    logits: Tensor,
}

impl TextPredictor {
    /// For a model that reads tokens, whose parameters are those of an arena of one replica.
    ///
    /// # Errors
    /// [`Error::Value`] for another model or more replicas.
    pub fn new(arena: &Arena, model: &Model) -> Result<Self> {
        let Input::Tokens { vocabulary } = model.input() else {
            return Err(Error::value(
                "input of the model",
                format!("{:?}", model.input()),
                "tokens",
            ));
        };
        if arena.replicas() != 1 {
            return Err(Error::value("replicas", arena.replicas(), "1"));
        }
        let (arena, model) = (arena.clone(), model.clone());
        Ok(TextPredictor { arena, model, vocabulary, steps: BTreeMap::new() })
    }

    /// What is expected after each of `texts`, from nothing before them.
    ///
    /// # Errors
    /// [`Error::Value`] for an empty text or a token past the vocabulary; device errors.
    pub async fn start_async(&mut self, texts: &[&[u32]]) -> Result<Vec<Next>> {
        if let Some(at) = texts.iter().position(|text| text.is_empty()) {
            return Err(Error::value(format!("text {at}"), "empty", "at least one token"));
        }
        let blank = self.plan(texts.len())?.1.blank();
        let mut all = vec![Next { state: blank, logits: Vec::new() }; texts.len()];
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        for at in 0..longest {
            let reading: Vec<usize> = (0..texts.len()).filter(|i| at < texts[*i].len()).collect();
            let states: Vec<_> = reading.iter().map(|i| all[*i].state.clone()).collect();
            let tokens: Vec<_> = reading.iter().map(|i| texts[*i][at]).collect();
            let read = self.step_async(&states.iter().collect::<Vec<_>>(), &tokens).await?;
            reading.into_iter().zip(read).for_each(|(i, next)| all[i] = next);
        }
        Ok(all)
    }

    /// What is expected after one more token each, `tokens[i]` from `states[i]` on.
    ///
    /// # Errors
    /// [`Error::Value`] for another number of tokens than states, a state of another model or a
    /// token past the vocabulary; device errors.
    pub async fn step_async(&mut self, states: &[&TextState], tokens: &[u32]) -> Result<Vec<Next>> {
        if states.len() != tokens.len() {
            return Err(Error::value("tokens", tokens.len(), format!("{}", states.len())));
        }
        if let Some(at) = tokens.iter().position(|token| *token as usize >= self.vocabulary) {
            let expected = format!("one below {}", self.vocabulary);
            return Err(Error::value(format!("token {at}"), tokens[at], expected));
        }
        let mut all = Vec::with_capacity(states.len());
        let most = BATCHES[1];
        for (states, tokens) in states.chunks(most).zip(tokens.chunks(most)) {
            let (batch, step) = self.plan(states.len())?;
            all.extend(step.run(batch, states, tokens).await?);
        }
        Ok(all)
    }

    /// [`TextPredictor::start_async`], waiting.
    ///
    /// # Errors
    /// As of it.
    #[cfg(feature = "blocking")]
    pub fn start(&mut self, texts: &[&[u32]]) -> Result<Vec<Next>> {
        let device = self.arena.device().clone();
        device.wait(self.start_async(texts))
    }

    /// [`TextPredictor::step_async`], waiting.
    ///
    /// # Errors
    /// As of it.
    #[cfg(feature = "blocking")]
    pub fn step(&mut self, states: &[&TextState], tokens: &[u32]) -> Result<Vec<Next>> {
        let device = self.arena.device().clone();
        device.wait(self.step_async(states, tokens))
    }

    /// The plan for so many texts, and its batch.
    fn plan(&mut self, texts: usize) -> Result<(usize, &mut Step)> {
        let batch = texts.next_power_of_two().clamp(BATCHES[0], BATCHES[1]);
        let step = match self.steps.entry(batch) {
            Entry::Occupied(step) => step.into_mut(),
            Entry::Vacant(none) => none.insert(Step::record(&self.arena, &self.model, batch)?),
        };
        Ok((batch, step))
    }
}

impl Step {
    fn record(arena: &Arena, model: &Model, batch: usize) -> Result<Self> {
        let mut graph = Graph::new(arena);
        let tokens = graph.input("tokens", &[1, batch], Element::U32);
        let forward = model.forward(&mut graph, tokens, Mode::EvaluateCarrying)?;
        let width = |tensor: &Tensor| (*tensor, graph.len(*tensor) / batch);
        let state = forward.state.iter().map(width).collect();
        let logits = graph.keep(forward.output);
        Ok(Step { plan: graph.forward()?, tokens, state, logits })
    }

    /// Nothing read yet.
    fn blank(&self) -> TextState {
        TextState(vec![0.0; self.state.iter().map(|(_, width)| width).sum()].into())
    }

    async fn run(
        &mut self,
        batch: usize,
        states: &[&TextState],
        tokens: &[u32],
    ) -> Result<Vec<Next>> {
        let mut padded = tokens.to_vec();
        padded.resize(batch, 0);
        self.plan.write_async(self.tokens, &Data::U32(padded)).await?;
        let all: usize = self.state.iter().map(|(_, width)| width).sum();
        if let Some(other) = states.iter().find(|state| state.0.len() != all) {
            return Err(Error::value("elements of a state", other.0.len(), all.to_string()));
        }
        let mut start = 0;
        for (tensor, width) in &self.state {
            let mut values: Vec<f32> = Vec::with_capacity(batch * width);
            states.iter().for_each(|state| values.extend(&state.0[start..start + width]));
            values.resize(batch * width, 0.0);
            self.plan.write_async(*tensor, &Data::F32(values)).await?;
            start += width;
        }
        self.plan.run_async(1).await?;
        let mut new = vec![Vec::with_capacity(all); tokens.len()];
        for (tensor, width) in &self.state {
            let values = self.plan.read_async(*tensor).await?.floats()?;
            for (state, values) in new.iter_mut().zip(values.chunks(*width)) {
                state.extend_from_slice(values);
            }
        }
        let logits = self.plan.read_async(self.logits).await?.floats()?;
        let logits = logits.chunks(logits.len() / batch);
        let next = |(state, logits): (Vec<f32>, &[f32])| Next {
            state: TextState(state.into()),
            logits: logits.to_vec(),
        };
        Ok(new.into_iter().zip(logits).map(next).collect())
    }
}
