//! What a model is worth to a user: on the lines held back from all training.

use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tern_engine::Device;
use tern_fl::methods::personalize::Score;
use tern_fl::tokens::Alphabet;

use super::predictor::Predictor;
use super::reader::{Passage, Reader};
use crate::keystrokes::{Keystrokes, sample, type_lines};
use crate::public::PublicModel;
use crate::suggest::Search;
use crate::users::User;

/// How suggestions are searched while many lines are typed: a little narrower than for a
/// person, who waits for one at a time.
const SEARCH: Search = Search { count: 3, beam: 8, longest: 16 };

/// What one model is worth to one user.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// Next characters.
    pub scores: Score,
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
}

/// Measures models of a layout on a device.
pub struct Meter {
    public: Arc<PublicModel>,
    predictor: Predictor,
    /// Of the predictor's model.
    reader: Reader,
}

impl Meter {
    /// For the public model and those that come of it.
    pub fn new(device: &Device, public: &Arc<PublicModel>) -> Result<Self> {
        let predictor = Predictor::new(device, public)?;
        let reader = Reader::new(predictor.arena(), &public.card.spec)?;
        Ok(Meter { public: public.clone(), predictor, reader })
    }

    /// How well a model expects a user's lines.
    pub fn scores(&mut self, lines: &HeldBack, weights: &[f32]) -> Result<Score> {
        self.predictor.set_weights(weights)?;
        self.reader.read(std::slice::from_ref(&lines.passage))
    }

    /// The same, and what typing with its suggestions saves.
    pub fn measure(&mut self, lines: &HeldBack, weights: &[f32]) -> Result<Worth> {
        let scores = self.scores(lines, weights)?;
        let text: Vec<&str> = lines.lines.iter().map(String::as_str).collect();
        let alphabet = &self.public.card.alphabet;
        let keystrokes = type_lines(&mut self.predictor, alphabet, &text, &SEARCH)?;
        Ok(Worth { scores, keystrokes, saved: keystrokes.saved() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public::tiny;

    #[test]
    fn what_is_measured_is_the_held_back_lines() {
        let public = Arc::new(tiny());
        let mut meter = Meter::new(&Device::cpu(), &public).unwrap();
        let lines = |n: usize| vec!["so it goes".to_owned(); n];
        let user = User { name: "ann".into(), train: lines(8), held_back: lines(3) };
        let held_back = HeldBack::new(&public.card.alphabet, &user, 20);
        assert_eq!(held_back.length(), 20, "two of three lines");
        let worth = meter.measure(&held_back, public.weights()).unwrap();
        assert_eq!(worth.scores.targets, 33, "line ends counted");
        assert_eq!(worth.keystrokes.characters, 20);
        assert!(worth.saved < 0.3, "an untrained model can't know the words: {worth:?}");
        let other: Vec<f32> = public.weights().iter().map(|x| 2.0 * x).collect();
        assert_ne!(meter.scores(&held_back, &other).unwrap(), worth.scores);
        assert_eq!(meter.scores(&held_back, public.weights()).unwrap(), worth.scores);
    }
}
