//! A language model one character at a time, for the beam search behind suggestions.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use tern_engine::nn::Mode;
use tern_engine::{Arena, Data, Device, Element, Flat, Graph, Plan, Tensor};

use super::public::PublicModel;
use crate::suggest::{Next, NextChar};

/// Texts that one plan can hold.
const BATCHES: std::ops::RangeInclusive<usize> = 8..=1024;

/// Recurrent state of one text: h and c of each layer, one after the other.
pub type State = Arc<[f32]>;

/// A model on a device that reads many texts by one character each.
pub struct Predictor {
    public: Arc<PublicModel>,
    arena: Arena,
    /// By batch, made when first needed.
    steps: BTreeMap<usize, Step>,
}

/// A plan that goes on by one character.
struct Step {
    plan: Plan,
    tokens: Tensor,
    /// h and c of each layer and their width.
    state: Vec<(Tensor, usize)>,
    logits: Tensor,
}

impl Predictor {
    /// The public model on a device.
    pub fn new(device: &Device, public: &Arc<PublicModel>) -> Result<Self> {
        let arena = public.arena(device)?;
        Ok(Predictor { public: public.clone(), arena, steps: BTreeMap::new() })
    }

    /// The room of its model.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Another model of the same layout from now on.
    pub fn set_weights(&mut self, weights: &[f32]) -> Result<()> {
        Ok(self.arena.write(Flat::Parameters, 0, weights)?)
    }

    fn step_of(&mut self, texts: usize) -> Result<(usize, &mut Step)> {
        let batch = texts.next_power_of_two().clamp(*BATCHES.start(), *BATCHES.end());
        if !self.steps.contains_key(&batch) {
            let mut graph = Graph::new(&self.arena);
            let tokens = graph.input("tokens", &[1, batch], Element::U32);
            let forward = self.public.model.forward(&mut graph, tokens, Mode::EvaluateCarrying)?;
            let tensors = forward.state.iter().flat_map(|(h, c)| [*h, *c]);
            let state = tensors.map(|t| (t, graph.len(t) / batch)).collect();
            let logits = graph.keep(forward.output);
            let plan = graph.forward()?;
            self.steps.insert(batch, Step { plan, tokens, state, logits });
        }
        match self.steps.get_mut(&batch) {
            Some(step) => Ok((batch, step)),
            None => unreachable!("inserted above"),
        }
    }
}

impl Step {
    fn run(&mut self, batch: usize, states: &[&State], tokens: &[u32]) -> Result<Vec<Next<State>>> {
        let mut padded = tokens.to_vec();
        padded.resize(batch, 0);
        self.plan.write(self.tokens, &Data::U32(padded))?;
        let mut start = 0;
        for (tensor, width) in &self.state {
            let mut values: Vec<f32> = Vec::with_capacity(batch * width);
            states.iter().for_each(|s| values.extend(&s[start..start + width]));
            values.resize(batch * width, 0.0);
            self.plan.write(*tensor, &Data::F32(values))?;
            start += width;
        }
        self.plan.run(1)?;
        let mut new = vec![Vec::with_capacity(start); tokens.len()];
        for (tensor, width) in &self.state {
            let values = floats(self.plan.read(*tensor)?);
            for (state, values) in new.iter_mut().zip(values.chunks(*width)) {
                state.extend_from_slice(values);
            }
        }
        let logits = floats(self.plan.read(self.logits)?);
        let vocabulary = logits.len() / batch;
        let nexts = new.into_iter().zip(logits.chunks(vocabulary));
        Ok(nexts
            .map(|(state, logits)| Next { state: state.into(), log_probs: log_softmax(logits) })
            .collect())
    }
}

fn floats(data: Data) -> Vec<f32> {
    match data {
        Data::F32(values) => values,
        Data::U32(_) => unreachable!("states and logits are floats"),
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|x| (x - max).exp()).sum();
    let log_sum = max + sum.ln();
    logits.iter().map(|x| x - log_sum).collect()
}

impl NextChar for Predictor {
    type State = State;

    fn start(&mut self, contexts: &[&[u32]]) -> Result<Vec<Next<State>>> {
        ensure!(contexts.iter().all(|c| !c.is_empty()), "a context without a character");
        let (_, step) = self.step_of(contexts.len())?;
        let zero: State = vec![0.0; step.state.iter().map(|(_, width)| width).sum()].into();
        let blank = Next { state: zero, log_probs: Vec::new() };
        let mut nexts = vec![blank; contexts.len()];
        let longest = contexts.iter().map(|c| c.len()).max().unwrap_or(0);
        for at in 0..longest {
            let reading: Vec<usize> =
                (0..contexts.len()).filter(|i| at < contexts[*i].len()).collect();
            let states: Vec<_> = reading.iter().map(|i| nexts[*i].state.clone()).collect();
            let tokens: Vec<_> = reading.iter().map(|i| contexts[*i][at]).collect();
            let read = self.step(&states.iter().collect::<Vec<_>>(), &tokens)?;
            reading.into_iter().zip(read).for_each(|(i, next)| nexts[i] = next);
        }
        Ok(nexts)
    }

    fn step(&mut self, states: &[&State], tokens: &[u32]) -> Result<Vec<Next<State>>> {
        ensure!(states.len() == tokens.len(), "{} states, {} tokens", states.len(), tokens.len());
        let mut nexts = Vec::with_capacity(states.len());
        let most = *BATCHES.end();
        for (states, tokens) in states.chunks(most).zip(tokens.chunks(most)) {
            let (batch, step) = self.step_of(states.len())?;
            nexts.extend(step.run(batch, states, tokens)?);
        }
        Ok(nexts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyboard::public::tiny;
    use crate::keyboard::reader::{Passage, Reader};

    #[test]
    fn one_character_at_a_time_expects_what_reading_at_once_does() {
        let public = Arc::new(tiny());
        let device = Device::cpu();
        let mut predictor = Predictor::new(&device, &public).unwrap();
        let text: Vec<u32> = (0..60).map(|i| 1 + i * i % 90).collect();
        let short = &text[..20];
        let starts = predictor.start(&[&text[..1], short, &text]).unwrap();
        let mut reader = Reader::new(predictor.arena(), &public.card.spec).unwrap();
        let read = reader.read(&[Passage { tokens: text.clone(), from: 1 }]).unwrap();
        let mut next = starts[0].clone();
        let (mut loss, mut top1) = (0.0, 0);
        for typed in &text[1..] {
            let best = (0..).zip(&next.log_probs).max_by(|a, b| a.1.total_cmp(b.1));
            top1 += usize::from(best.map(|(token, _)| token) == Some(*typed));
            let sum: f32 = next.log_probs.iter().map(|p| p.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-4);
            loss -= f64::from(next.log_probs[*typed as usize]) / 59.0;
            next = predictor.step(&[&next.state], &[*typed]).unwrap().remove(0);
        }
        assert_eq!((read.targets, read.top1), (59, top1));
        assert!((loss - read.loss).abs() < 1e-4, "{loss} and {}", read.loss);
        let off = |a: &Next<State>, b: &Next<State>| {
            a.state.iter().zip(b.state.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(off(&next, &starts[2]) < 1e-5, "where reading the whole context ends");
        assert!(off(&starts[1], &predictor.start(&[short]).unwrap()[0]) < 1e-5);
    }

    #[test]
    fn more_texts_than_a_plan_holds_are_read_in_parts() {
        let public = Arc::new(tiny());
        let mut predictor = Predictor::new(&Device::cpu(), &public).unwrap();
        let contexts: Vec<Vec<u32>> = (0..1030).map(|i| vec![1 + i % 90]).collect();
        let nexts =
            predictor.start(&contexts.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        assert_eq!(nexts.len(), 1030);
        assert_eq!(nexts[3].state, nexts[93 + 900].state);
        assert_ne!(nexts[3].state, nexts[4].state);
        assert!(predictor.start(&[&[]]).is_err());
    }
}
