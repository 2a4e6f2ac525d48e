//! A language model one character at a time, for the beam search behind suggestions.

use std::sync::Arc;

use anyhow::Result;
use tern_engine::nn::{self, TextPredictor, TextState};
use tern_engine::{Arena, Device, Flat};

use crate::public::PublicModel;
use crate::suggest::{Next, NextChar};

/// A model on a device that reads many texts by one character each.
pub struct Predictor {
    arena: Arena,
    texts: TextPredictor,
}

impl Predictor {
    /// The public model on a device.
    pub fn new(device: &Device, public: &Arc<PublicModel>) -> Result<Self> {
        let arena = public.arena(device)?;
        let texts = TextPredictor::new(&arena, &public.model)?;
        Ok(Predictor { arena, texts })
    }

    /// The room of its model.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Another model of the same layout from now on.
    pub fn set_weights(&mut self, weights: &[f32]) -> Result<()> {
        Ok(self.arena.write(Flat::Parameters, 0, weights)?)
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|x| (x - max).exp()).sum();
    let log_sum = max + sum.ln();
    logits.iter().map(|x| x - log_sum).collect()
}

fn with_log_probs(read: Vec<nn::Next>) -> Vec<Next<TextState>> {
    let next = |nn::Next { state, logits }| Next { state, log_probs: log_softmax(&logits) };
    read.into_iter().map(next).collect()
}

impl NextChar for Predictor {
    type State = TextState;

    fn start(&mut self, contexts: &[&[u32]]) -> Result<Vec<Next<TextState>>> {
        Ok(with_log_probs(self.texts.start(contexts)?))
    }

    fn step(&mut self, states: &[&TextState], tokens: &[u32]) -> Result<Vec<Next<TextState>>> {
        Ok(with_log_probs(self.texts.step(states, tokens)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyboard::reader::{Passage, Reader};
    use crate::public::tiny;

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
        let off = |a: &Next<TextState>, b: &Next<TextState>| {
            let off = a.log_probs.iter().zip(&b.log_probs).map(|(a, b)| (a - b).abs());
            off.fold(0.0, f32::max)
        };
        assert!(off(&next, &starts[2]) < 1e-4, "where reading the whole context ends");
        assert!(off(&starts[1], &predictor.start(&[short]).unwrap()[0]) < 1e-4);
    }
}
