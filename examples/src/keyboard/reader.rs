//! Reading text with a model: how well it expects each character.

use anyhow::Result;
use tern_engine::Arena;
use tern_engine::nn::ModelSpec;
use tern_fl::methods::personalize::{Batch, Score, Scorer, Shape};

use crate::users::{Windows, windows};

/// Windows read at a time.
const SHAPE: Shape = Shape { rows: 32, length: 200 };
/// Characters before each that is counted, so that the model never reads cold.
pub const CONTEXT: usize = 60;

/// Text to read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passage {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Tokens before this one are context only; the first token always is.
    pub from: usize,
}

impl Passage {
    /// `text` after what stands before it, of which the end is context.
    pub fn after(before: &[u32], text: &[u32]) -> Self {
        let context = &before[before.len().saturating_sub(CONTEXT)..];
        Passage { tokens: [context, text].concat(), from: context.len() }
    }
}

/// Windows as batches of a shape.
pub fn batches(windows: &[Windows], shape: Shape) -> Result<Vec<Batch>> {
    let all: Vec<_> = windows.iter().flat_map(Windows::iter).collect();
    all.chunks(shape.rows).map(|some| Ok(Batch::of_windows(shape, some)?)).collect()
}

/// Reads with the model in an arena.
pub struct Reader {
    scorer: Scorer,
}

impl Reader {
    /// A reader with the model of an arena, whatever its weights are at the time.
    pub fn new(arena: &Arena, spec: &ModelSpec) -> Result<Self> {
        Ok(Reader { scorer: Scorer::new(arena, spec, SHAPE)? })
    }

    /// How well the model expects the passages.
    pub fn read(&mut self, passages: &[Passage]) -> Result<Score> {
        let cut = |p: &Passage| windows(&p.tokens, p.from, SHAPE.length, CONTEXT);
        let cut: Vec<Windows> = passages.iter().map(cut).collect();
        Ok(self.scorer.score(&batches(&cut, SHAPE)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public::tiny;
    use tern_engine::Device;

    #[test]
    fn passages_are_read_as_if_each_were_alone() {
        let public = tiny();
        let arena = public.arena(&Device::cpu()).unwrap();
        let mut reader = Reader::new(&arena, &public.card.spec).unwrap();
        let text = |n: u32| (0..n).map(|i| 1 + i * i % 90).collect::<Vec<u32>>();
        let passages = [
            Passage::after(&text(100), &text(6000)),
            Passage::after(&[1], &text(30)),
            Passage::after(&[], &text(200)),
        ];
        let together = reader.read(&passages).unwrap();
        assert_eq!(together.targets, 6000 + 30 + 199);
        let alone = passages.map(|p| reader.read(&[p]).unwrap());
        let sum = |value: fn(&Score) -> f64| alone.iter().map(value).sum::<f64>();
        assert_eq!(together.top1 as f64, sum(|s| s.top1 as f64));
        assert_eq!(together.top3 as f64, sum(|s| s.top3 as f64));
        let loss = sum(|s| s.loss * s.targets as f64) / together.targets as f64;
        assert!((together.loss - loss).abs() < 1e-4, "{} and {loss}", together.loss);
        let uniform = f64::from(public.card.alphabet.tokens() as u32).ln();
        assert!((loss - uniform).abs() < 0.5, "{loss} of {uniform}");
        assert_eq!(reader.read(&[]).unwrap(), Score::default());
    }
}
