//! What a model is worth to a user: on the lines held back from all training.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::predictor::Predictor;
use super::reader::{Passage, Scores};
use super::workbench::Workbench;
use crate::alphabet::Alphabet;
use crate::keystrokes::{Keystrokes, sample, type_lines};
use crate::suggest::{NextChar, Search};
use crate::users::User;

/// How suggestions are searched while many lines are typed: a little narrower than for a
/// person, who waits for one at a time.
const SEARCH: Search = Search { count: 3, beam: 8, longest: 16 };

/// What one model is worth to one user.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// Next characters.
    pub scores: Scores,
    /// Typing with suggestions.
    pub keystrokes: Keystrokes,
    /// Part of the keystrokes that the suggestions save.
    pub saved: f64,
}

/// A user's held-back lines.
pub struct HeldBack {
    passage: Passage,
    lines: Vec<String>,
}

impl HeldBack {
    /// The lines after those that the user typed before; about `typed` of their characters are
    /// typed with suggestions.
    pub fn new(alphabet: &Alphabet, user: &User, typed: usize) -> Self {
        // Both begin and end with a line end.
        let before = alphabet.encode_lines(&user.train);
        let text = alphabet.encode_lines(&user.held_back);
        let lines = sample(&user.held_back, typed);
        HeldBack {
            passage: Passage::after(&before, &text[1..]),
            lines: lines.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Keystrokes that a simulated typing takes.
    pub fn length(&self) -> usize {
        self.lines.iter().map(|line| line.chars().count()).sum()
    }

    /// How well a model expects the lines.
    pub fn scores(&self, bench: &mut Workbench, weights: &[f32]) -> Result<Scores> {
        Ok(bench.read(&[(weights, std::slice::from_ref(&self.passage))])?[0].scores)
    }

    /// Measures a model.
    pub fn measure(
        &self,
        bench: &mut Workbench,
        predictor: &mut Predictor,
        weights: &[f32],
    ) -> Result<Worth> {
        let scores = self.scores(bench, weights)?;
        predictor.set_weights(weights)?;
        let keystrokes = self.type_with(predictor, &bench.public().card.alphabet)?;
        Ok(Worth { scores, keystrokes, saved: keystrokes.saved() })
    }

    fn type_with(&self, model: &mut impl NextChar, alphabet: &Alphabet) -> Result<Keystrokes> {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        type_lines(model, alphabet, &lines, &SEARCH)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::keyboard::public::tiny;
    use tern_engine::Device;

    #[test]
    fn what_is_measured_is_the_held_back_lines() {
        let public = Arc::new(tiny());
        let device = Device::cpu();
        let mut bench = Workbench::new(&device, &public).unwrap();
        let mut predictor = Predictor::new(&device, &public).unwrap();
        let lines = |n: usize| vec!["so it goes".to_owned(); n];
        let user = User { name: "ann".into(), train: lines(8), held_back: lines(3) };
        let held_back = HeldBack::new(&public.card.alphabet, &user, 20);
        assert_eq!(held_back.length(), 20, "two of three lines");
        let worth = held_back.measure(&mut bench, &mut predictor, public.weights()).unwrap();
        assert_eq!(worth.scores.characters, 33, "line ends counted");
        assert_eq!(worth.keystrokes.characters, 20);
        assert!(worth.saved < 0.3, "an untrained model can't know the words: {worth:?}");
    }
}
