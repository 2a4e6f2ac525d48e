//! Keystrokes that suggestions save: a simulated user types held-back lines and takes a
//! suggestion whenever it is the word meant.
//!
//! A character typed is one keystroke, and so is a suggestion taken, which brings the space
//! after the word with it. Before each character of a word the user looks at the suggestions.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tern_fl::tokens::Alphabet;

use crate::suggest::{Next, NextChar, Search, in_word, partial_word, suggest};

/// What was typed, and with how many keystrokes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keystrokes {
    /// Characters of the lines.
    pub characters: usize,
    /// Keys pressed and suggestions taken.
    pub pressed: usize,
    /// Suggestions taken.
    pub taken: usize,
}

impl Keystrokes {
    /// Part of the keystrokes saved: 1 − pressed / characters.
    pub fn saved(&self) -> f64 {
        if self.characters == 0 {
            return 0.0;
        }
        1.0 - self.pressed as f64 / self.characters as f64
    }
}

/// Lines spread evenly over `lines` that have about `characters` characters in all: what a
/// measurement that must end soon types. All lines, if they have no more; the beginning of one
/// that alone has more.
pub fn sample(lines: &[String], characters: usize) -> Vec<&str> {
    let total: usize = lines.iter().map(|line| line.chars().count()).sum();
    let mut chosen = Vec::new();
    let (mut seen, mut taken) = (0, 0);
    for line in lines {
        let length = line.chars().count();
        // Taken so far must not fall behind the part of the lines passed so far.
        if total <= characters || taken * total <= seen * characters {
            let end = line.char_indices().nth(characters).map_or(line.len(), |(at, _)| at);
            chosen.push(&line[..end]);
            taken += length.min(characters);
        }
        seen += length;
    }
    chosen
}

/// A line being typed.
struct Typist<S> {
    text: Vec<char>,
    /// Characters that stand in the line.
    at: usize,
    /// Characters that the model has read.
    read: usize,
    next: Next<S>,
}

impl<S> Typist<S> {
    /// The rest of the word that the user is in or about to begin; empty elsewhere.
    fn wanted(&self) -> String {
        let rest: String = self.text[self.at..].iter().take_while(|c| in_word(**c)).collect();
        rest.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned()
    }

    fn inside_word(&self) -> bool {
        !partial_word(&self.text[..self.at].iter().collect::<String>()).is_empty()
    }
}

/// Types the lines side by side, each from the beginning of a line.
pub fn type_lines<M: NextChar>(
    model: &mut M,
    alphabet: &Alphabet,
    lines: &[&str],
    search: &Search,
) -> Result<Keystrokes> {
    let begin = [alphabet.token('\n')];
    let starts = model.start(&vec![begin.as_slice(); lines.len()])?;
    let mut typists: Vec<_> = lines
        .iter()
        .zip(starts)
        .map(|(line, next)| Typist { text: line.chars().collect(), at: 0, read: 0, next })
        .collect();
    let characters = typists.iter().map(|typist| typist.text.len()).sum();
    let mut keys = Keystrokes { characters, pressed: 0, taken: 0 };
    loop {
        typists.retain(|typist| typist.at < typist.text.len());
        if typists.is_empty() {
            return Ok(keys);
        }
        let wanted: Vec<_> = typists.iter().map(Typist::wanted).collect();
        let asking = typists.iter().zip(&wanted).filter(|(_, wanted)| !wanted.is_empty());
        let places: Vec<_> = asking.map(|(t, _)| (&t.next, t.inside_word())).collect();
        let mut offers = suggest(model, alphabet, &places, search)?.into_iter();
        for (typist, wanted) in typists.iter_mut().zip(wanted) {
            keys.pressed += 1;
            let offered = if wanted.is_empty() { None } else { offers.next() };
            if offered.is_some_and(|words| words.iter().any(|word| word.rest == wanted)) {
                keys.taken += 1;
                typist.at += wanted.chars().count();
                typist.at += usize::from(typist.text.get(typist.at) == Some(&' '));
            } else {
                typist.at += 1;
            }
        }
        catch_up(model, alphabet, &mut typists)?;
    }
}

/// Lets the model read what stands in the lines by now.
fn catch_up<M: NextChar>(
    model: &mut M,
    alphabet: &Alphabet,
    typists: &mut [Typist<M::State>],
) -> Result<()> {
    loop {
        // A line that is complete needs no state any more.
        let mut behind: Vec<_> =
            typists.iter_mut().filter(|t| t.read < t.at && t.at < t.text.len()).collect();
        if behind.is_empty() {
            return Ok(());
        }
        let states: Vec<_> = behind.iter().map(|t| &t.next.state).collect();
        let tokens: Vec<_> = behind.iter().map(|t| alphabet.token(t.text[t.read])).collect();
        let nexts = model.step(&states, &tokens)?;
        for (typist, next) in behind.iter_mut().zip(nexts) {
            typist.next = next;
            typist.read += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suggest::toy::Lexicon;

    const WORDS: &[(&str, f32)] =
        &[("one", 9.0), ("two", 8.0), ("three", 7.0), ("thirteen", 2.0), ("thirty", 1.0)];

    fn typed(lines: &[&str]) -> Keystrokes {
        let alphabet = Alphabet::covering([], 0);
        let mut model = Lexicon { alphabet: &alphabet, words: WORDS, calls: 0 };
        type_lines(&mut model, &alphabet, lines, &Search::default()).unwrap()
    }

    #[test]
    fn a_suggestion_brings_its_space() {
        // Both words are suggested before their first letter.
        assert_eq!(typed(&["two one"]), Keystrokes { characters: 7, pressed: 2, taken: 2 });
        // The full stop follows the word without a space: it is typed.
        assert_eq!(typed(&["two."]), Keystrokes { characters: 4, pressed: 2, taken: 1 });
    }

    #[test]
    fn a_word_is_typed_until_it_is_suggested() {
        // "t" leaves two, three and thirteen as the three most probable: take "hirteen".
        assert_eq!(typed(&["thirteen"]), Keystrokes { characters: 8, pressed: 2, taken: 1 });
        // After "th" the three are three, thirteen, thirty: "irty" is taken.
        assert_eq!(typed(&["thirty one"]), Keystrokes { characters: 10, pressed: 4, taken: 2 });
    }

    #[test]
    fn unknown_words_cost_their_characters() {
        let keys = typed(&["xyz", "— %"]);
        assert_eq!(keys, Keystrokes { characters: 6, pressed: 6, taken: 0 });
        assert_eq!(keys.saved(), 0.0);
        assert_eq!(typed(&[]).saved(), 0.0);
    }

    #[test]
    fn lines_side_by_side_cost_what_they_cost_alone() {
        let lines = ["thirty two", "one", "xyz thirteen, two"];
        let mut sum = Keystrokes::default();
        for line in lines {
            let keys = typed(&[line]);
            sum.characters += keys.characters;
            sum.pressed += keys.pressed;
            sum.taken += keys.taken;
        }
        assert_eq!(typed(&lines), sum);
    }

    #[test]
    fn samples_are_spread_over_the_lines() {
        let lines: Vec<_> = (0..10).map(|i| format!("line number {i}")).collect();
        assert_eq!(sample(&lines, 1000).len(), 10);
        let some = sample(&lines, 3 * 13);
        assert_eq!(some, ["line number 0", "line number 4", "line number 7"]);
        assert_eq!(sample(&lines, 4), ["line"], "no line has more than are to be typed");
    }
}
