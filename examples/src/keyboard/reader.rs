//! Reading text with a model: what it expects before each character, and how often that is
//! what comes.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tern_engine::nn::{Mode, Model};
use tern_engine::{Arena, Data, Element, Graph, Plan, Tensor};

use crate::users::{IGNORED, windows};

/// Predictions kept for each character.
pub const PREDICTIONS: usize = 3;
/// Characters read at a time.
const LENGTH: usize = 200;
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

/// How well a model expected a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Rates", from = "Rates")]
pub struct Scores {
    /// Characters counted.
    pub characters: usize,
    /// Of these, the most probable one.
    pub top1: usize,
    /// Of these, among the three most probable.
    pub top3: usize,
    /// Sum of −ln of their probabilities.
    pub loss: f64,
}

#[derive(Serialize, Deserialize)]
struct Rates {
    characters: usize,
    top1: f64,
    top3: f64,
    loss: f64,
}

impl From<Scores> for Rates {
    fn from(s: Scores) -> Self {
        Rates { characters: s.characters, top1: s.top1(), top3: s.top3(), loss: s.loss() }
    }
}

impl From<Rates> for Scores {
    fn from(rates: Rates) -> Self {
        let Rates { characters, top1, top3, loss } = rates;
        let count = |rate: f64| (rate * characters as f64).round() as usize;
        let (top1, top3) = (count(top1), count(top3));
        Scores { characters, top1, top3, loss: loss * characters as f64 }
    }
}

impl Scores {
    fn of(&self, count: f64) -> f64 {
        if self.characters == 0 { 0.0 } else { count / self.characters as f64 }
    }

    /// Part of the characters that were the most probable one.
    pub fn top1(&self) -> f64 {
        self.of(self.top1 as f64)
    }

    /// Part of the characters that were among the three most probable.
    pub fn top3(&self) -> f64 {
        self.of(self.top3 as f64)
    }

    /// Mean loss a character, in nats.
    pub fn loss(&self) -> f64 {
        self.of(self.loss)
    }

    /// Counts a character and what was expected.
    pub fn count(&mut self, typed: u32, predicted: &[u32; PREDICTIONS]) {
        self.characters += 1;
        self.top1 += usize::from(predicted[0] == typed);
        self.top3 += usize::from(predicted.contains(&typed));
    }
}

/// What a model made of the passages given to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Over all passages.
    pub scores: Scores,
    /// The most probable tokens before each one counted, passage after passage.
    pub predicted: Vec<[u32; PREDICTIONS]>,
}

/// A window of a passage on its way to the device.
struct Row {
    inputs: Vec<u32>,
    targets: Vec<u32>,
}

/// A plan that reads batches of windows, each replica its own.
pub struct Reader {
    plan: Plan,
    inputs: Tensor,
    targets: Tensor,
    loss: Tensor,
    places: Tensor,
    batch: usize,
}

impl Reader {
    /// A reader with the models of an arena, `batch` windows at a time.
    pub fn new(arena: &Arena, model: &Model, batch: usize) -> Result<Self> {
        let mut graph = Graph::new(arena);
        let inputs = graph.input("inputs", &[LENGTH, batch], Element::U32);
        let targets = graph.input("targets", &[LENGTH, batch], Element::U32);
        let forward = model.forward(&mut graph, inputs, Mode::Evaluate)?;
        let loss = graph.cross_entropy(forward.output, targets)?;
        let (_, places) = graph.top_k(forward.output, PREDICTIONS as u32)?;
        let (loss, places) = (graph.keep(loss), graph.keep(places));
        Ok(Reader { plan: graph.forward()?, inputs, targets, loss, places, batch })
    }

    /// Reads each replica's passages with its model; replicas past the end of the list rest.
    pub fn read(&mut self, passages: &[&[Passage]]) -> Result<Vec<Reading>> {
        let rows: Vec<Vec<Row>> =
            passages.iter().map(|list| list.iter().flat_map(rows).collect()).collect();
        let batches = rows.iter().map(|r| r.len().div_ceil(self.batch)).max().unwrap_or(0);
        let mut readings = vec![Reading::default(); passages.len()];
        for batch in 0..batches {
            let first = batch * self.batch;
            let now: Vec<&[Row]> = rows
                .iter()
                .map(|r| &r[first.min(r.len())..(first + self.batch).min(r.len())])
                .collect();
            self.read_batch(&now, &mut readings)?;
        }
        Ok(readings)
    }

    fn read_batch(&mut self, rows: &[&[Row]], readings: &mut [Reading]) -> Result<()> {
        let size = LENGTH * self.batch;
        let replicas = self.plan.arena().replicas();
        let mut inputs = vec![0; replicas * size];
        let mut targets = vec![IGNORED; replicas * size];
        for (replica, rows) in rows.iter().enumerate() {
            for (b, row) in rows.iter().enumerate() {
                for t in 0..LENGTH {
                    let at = replica * size + t * self.batch + b;
                    inputs[at] = row.inputs[t];
                    targets[at] = row.targets[t];
                }
            }
        }
        self.plan.write(self.inputs, &Data::U32(inputs))?;
        self.plan.write(self.targets, &Data::U32(targets))?;
        self.plan.run(1)?;
        let (losses, places) = (self.plan.read(self.loss)?, self.plan.read(self.places)?);
        let (Data::F32(losses), Data::U32(places)) = (losses, places) else {
            unreachable!("a loss is a float, a place a word")
        };
        for (replica, (rows, reading)) in rows.iter().zip(readings).enumerate() {
            let before = reading.scores.characters;
            for (b, row) in rows.iter().enumerate() {
                for (t, typed) in row.targets.iter().enumerate().filter(|(_, t)| **t != IGNORED) {
                    let at = PREDICTIONS * (replica * size + t * self.batch + b);
                    let predicted = [places[at], places[at + 1], places[at + 2]];
                    reading.scores.count(*typed, &predicted);
                    reading.predicted.push(predicted);
                }
            }
            let counted = reading.scores.characters - before;
            reading.scores.loss += f64::from(losses[replica]) * counted as f64;
        }
        Ok(())
    }
}

/// The windows of a passage that have something to count.
fn rows(passage: &Passage) -> Vec<Row> {
    let from = passage.from.max(1);
    let skipped = (from - 1).saturating_sub(CONTEXT);
    let cut = windows(&passage.tokens[skipped.min(passage.tokens.len())..], LENGTH, CONTEXT);
    let pairs = cut.inputs.chunks(LENGTH).zip(cut.targets.chunks(LENGTH)).enumerate();
    pairs
        .map(|(row, (inputs, targets))| {
            let first = skipped + row * (LENGTH - CONTEXT) + 1;
            let counted = |(t, target): (usize, &u32)| {
                if first + t < from { IGNORED } else { *target }
            };
            Row {
                inputs: inputs.to_vec(),
                targets: targets.iter().enumerate().map(counted).collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyboard::public::tiny;
    use tern_engine::Device;

    #[test]
    fn each_character_is_counted_once_with_its_context() {
        for (n, from) in [(0, 0), (1, 0), (2, 1), (70, 61), (500, 0), (500, 100), (741, 333)] {
            let passage = Passage { tokens: (1000..1000 + n).collect(), from };
            let mut seen = Vec::new();
            for row in rows(&passage) {
                for (t, target) in row.targets.iter().enumerate().filter(|(_, t)| **t != IGNORED) {
                    assert_eq!(row.inputs[t] + 1, *target);
                    assert!(t >= CONTEXT || row.inputs[0] == 1000);
                    seen.push(*target);
                }
            }
            let expected: Vec<u32> = (1000 + from.max(1) as u32..1000 + n.max(1)).collect();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn readings_do_not_depend_on_batches_and_replicas() {
        let public = tiny();
        let device = Device::cpu();
        let text = |n: u32| (0..n).map(|i| 1 + i * i % 90).collect::<Vec<u32>>();
        let lists = [
            vec![Passage::after(&text(100), &text(450)), Passage::after(&[1], &text(30))],
            vec![],
            vec![Passage::after(&[], &text(200))],
        ];
        let lists: Vec<&[Passage]> = lists.iter().map(Vec::as_slice).collect();
        let mut alone = Reader::new(&public.arena(&device, 1).unwrap(), &public.model, 2).unwrap();
        let mut many = Reader::new(&public.arena(&device, 4).unwrap(), &public.model, 3).unwrap();
        let together = many.read(&lists).unwrap();
        assert_eq!(together[0].scores.characters, 450 + 30);
        assert_eq!(together[2].scores.characters, 199);
        for (list, together) in lists.iter().zip(&together) {
            let alone = &alone.read(&[list]).unwrap()[0];
            assert_eq!(alone.predicted, together.predicted);
            assert!((alone.scores.loss - together.scores.loss).abs() < 1e-2);
        }
        let (uniform, loss) = (f64::from(public.card.alphabet.tokens() as u32).ln(), &together[0]);
        assert!((loss.scores.loss() - uniform).abs() < 0.5, "{} of {uniform}", loss.scores.loss());
    }
}
