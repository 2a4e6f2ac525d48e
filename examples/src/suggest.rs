//! Whole-word suggestions from a next-character model, by beam search over characters.
//!
//! A search starts where the user stands, in or before a word, and extends the most probable
//! continuations character by character. A continuation is complete where the model expects
//! the word to end; its probability is that of its characters times that of any end.

use std::cmp::Ordering;

use anyhow::{Result, ensure};
use tern_fl::tokens::{Alphabet, UNKNOWN};

/// A model after some characters, and what it expects next.
#[derive(Clone, Debug)]
pub struct Next<S> {
    /// Where the model is: for a recurrent network its state.
    pub state: S,
    /// Natural logarithm of each token's probability.
    pub log_probs: Vec<f32>,
}

/// A next-character model. Both calls take a batch, since one device call for many states
/// costs little more than for one.
pub trait NextChar {
    /// What the model must remember to go on from a text.
    type State: Clone;

    /// Reads each context from the beginning. A context has at least one token.
    fn start(&mut self, contexts: &[&[u32]]) -> Result<Vec<Next<Self::State>>>;

    /// Goes on by one token from each state.
    fn step(&mut self, states: &[&Self::State], tokens: &[u32]) -> Result<Vec<Next<Self::State>>>;
}

/// How a search is done.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Suggestions wanted.
    pub count: usize,
    /// Continuations kept at each length.
    pub beam: usize,
    /// Characters a suggestion may add.
    pub longest: usize,
}

impl Default for Search {
    fn default() -> Self {
        Self { count: 3, beam: 16, longest: 20 }
    }
}

/// A suggestion.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// Characters it adds to those typed.
    pub rest: String,
    /// Probability of the word, forms that differ in case counted together.
    pub probability: f32,
}

/// Whether a character continues a word.
pub fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '\'' || c == '-'
}

/// Words begin and end with such a character.
fn at_edge(c: char) -> bool {
    c.is_alphanumeric()
}

/// Characters at the end of `text` that are the word being typed.
pub fn partial_word(text: &str) -> &str {
    let start = text.char_indices().rev().take_while(|(_, c)| in_word(*c)).last();
    start.map_or("", |(at, _)| &text[at..]).trim_start_matches(|c| !at_edge(c))
}

/// Probability, by the logarithms of each token's, that no character of a word comes next: that a
/// word is over, or that none begins here.
pub fn end_of_word(log_probs: &[f32], alphabet: &Alphabet) -> f32 {
    let ends =
        |token: u32| alphabet.char(token).filter(|_| token != UNKNOWN).is_some_and(|c| !in_word(c));
    (0u32..).zip(log_probs).filter(|(token, _)| ends(*token)).map(|(_, p)| p.exp()).sum()
}

/// An unfinished continuation.
struct Open<S> {
    text: String,
    log_prob: f32,
    next: Next<S>,
}

/// One search: finished words, best first, and open continuations.
struct Beam<'a, S> {
    in_word: bool,
    root: &'a Next<S>,
    open: Vec<Open<S>>,
    finished: Vec<Finished>,
    done: bool,
}

/// A word that may end where it ends.
struct Finished {
    text: String,
    /// In lower case: forms with the same are one word.
    folded: String,
    log_prob: f32,
}

/// An extension of a continuation, before the model has seen it.
struct Candidate {
    /// Index into `open`; none is the root.
    parent: Option<usize>,
    token: u32,
    char: char,
    log_prob: f32,
}

impl<S> Beam<'_, S> {
    /// Collects the words that may end here and the best extensions.
    fn extend(&mut self, alphabet: &Alphabet, search: &Search) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let mut visit = |parent: Option<usize>, text: &str, log_prob: f32, log_probs: &[f32]| {
            let edge = text.chars().next_back().map_or(self.in_word, at_edge);
            let mut end = 0.0;
            for (token, expected) in (0u32..).zip(log_probs) {
                match alphabet.char(token).filter(|_| token != UNKNOWN) {
                    Some(char) if in_word(char) => {
                        let log_prob = log_prob + expected;
                        let possible = log_prob > f32::NEG_INFINITY;
                        if possible && (edge || at_edge(char)) {
                            candidates.push(Candidate { parent, token, char, log_prob });
                        }
                    }
                    Some(_) => end += expected.exp(),
                    None => {}
                }
            }
            if edge && !text.is_empty() && end > 0.0 {
                add(&mut self.finished, text, log_prob + end.ln());
            }
        };
        if self.open.is_empty() {
            visit(None, "", 0.0, &self.root.log_probs);
        }
        for (at, open) in self.open.iter().enumerate() {
            visit(Some(at), &open.text, open.log_prob, &open.next.log_probs);
        }
        // A stable order, so that equal probabilities give the same words on every run.
        candidates.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob));
        candidates.truncate(search.beam);
        self.finished.sort_by(best_first);
        self.finished.truncate(search.beam.max(search.count));
        // No continuation can pass the last word wanted: probabilities only fall.
        let bar = self.finished.get(search.count.saturating_sub(1)).map(|word| word.log_prob);
        if let (Some(bar), Some(best)) = (bar, candidates.first())
            && bar >= best.log_prob
        {
            candidates.clear();
        }
        self.done = candidates.is_empty();
        candidates
    }

    fn root_or(&self, parent: Option<usize>) -> (&str, &S) {
        match parent {
            Some(at) => (&self.open[at].text, &self.open[at].next.state),
            None => ("", &self.root.state),
        }
    }
}

fn best_first(a: &Finished, b: &Finished) -> Ordering {
    b.log_prob.total_cmp(&a.log_prob).then_with(|| a.text.cmp(&b.text))
}

/// Adds a finished word. Forms that differ in case only are one word: it shows in the more
/// probable form, with the probabilities added.
fn add(finished: &mut Vec<Finished>, text: &str, log_prob: f32) {
    let folded = text.to_lowercase();
    match finished.iter_mut().find(|known| known.folded == folded) {
        Some(known) => {
            if log_prob > known.log_prob {
                known.text = text.to_owned();
            }
            // ln(exp a + exp b), which can't underflow.
            let (low, high) = (known.log_prob.min(log_prob), known.log_prob.max(log_prob));
            known.log_prob = high + (low - high).exp().ln_1p();
        }
        None => finished.push(Finished { text: text.to_owned(), folded, log_prob }),
    }
}

/// Suggests how to finish the word at each of several places, best first, at most
/// `search.count` each. A place is the model's state after the text so far, and whether that
/// text ends inside a word ([`partial_word`] is not empty).
pub fn suggest<M: NextChar>(
    model: &mut M,
    alphabet: &Alphabet,
    places: &[(&Next<M::State>, bool)],
    search: &Search,
) -> Result<Vec<Vec<Suggestion>>> {
    let mut beams: Vec<_> = places
        .iter()
        .map(|&(root, in_word)| Beam {
            in_word,
            root,
            open: Vec::new(),
            finished: Vec::new(),
            done: false,
        })
        .collect();
    // One round more than characters: the last one only finishes words.
    for length in 0..=search.longest {
        let extensions: Vec<_> = beams
            .iter_mut()
            .map(|b| if b.done { Vec::new() } else { b.extend(alphabet, search) })
            .collect();
        if length == search.longest || extensions.iter().all(Vec::is_empty) {
            break;
        }
        let (mut states, mut tokens) = (Vec::new(), Vec::new());
        for (beam, candidates) in beams.iter().zip(&extensions) {
            for candidate in candidates {
                states.push(beam.root_or(candidate.parent).1);
                tokens.push(candidate.token);
            }
        }
        let nexts = model.step(&states, &tokens)?;
        ensure!(nexts.len() == states.len(), "{} answers to {}", nexts.len(), states.len());
        let mut nexts = nexts.into_iter();
        for (beam, candidates) in beams.iter_mut().zip(extensions) {
            let grown = candidates.into_iter().zip(&mut nexts).map(|(candidate, next)| {
                let mut text = beam.root_or(candidate.parent).0.to_owned();
                text.push(candidate.char);
                Open { text, log_prob: candidate.log_prob, next }
            });
            beam.open = grown.collect();
        }
    }
    let best = |beam: Beam<'_, M::State>| {
        let words = beam.finished.into_iter().take(search.count);
        words.map(|w| Suggestion { rest: w.text, probability: w.log_prob.exp() }).collect()
    };
    Ok(beams.into_iter().map(best).collect())
}

/// A model small enough to compute by hand, for tests.
#[cfg(test)]
pub(crate) mod toy {
    use super::*;

    /// A word list with counts: the next character follows the words that fit what stands
    /// after the last space, all with the same rounding-free arithmetic.
    pub(crate) struct Lexicon<'a> {
        pub(crate) alphabet: &'a Alphabet,
        pub(crate) words: &'a [(&'a str, f32)],
        /// Calls of `step`, for tests of batching.
        pub(crate) calls: usize,
    }

    impl Lexicon<'_> {
        fn next(&self, state: String) -> Next<String> {
            let mut weights = vec![0.0; self.alphabet.tokens()];
            for (word, weight) in self.words {
                if let Some(rest) = word.strip_prefix(state.as_str()) {
                    let c = rest.chars().next().unwrap_or(' ');
                    weights[self.alphabet.token(c) as usize] += weight;
                }
            }
            if weights.iter().all(|w| *w == 0.0) {
                weights[self.alphabet.token(' ') as usize] = 1.0;
            }
            let sum: f32 = weights.iter().sum();
            let log_probs = weights.iter().map(|w| (w / sum).ln()).collect();
            Next { state, log_probs }
        }
    }

    impl NextChar for Lexicon<'_> {
        type State = String;

        fn start(&mut self, contexts: &[&[u32]]) -> Result<Vec<Next<String>>> {
            let after_space =
                |context: &[u32]| partial_word(&self.alphabet.decode(context)).to_owned();
            Ok(contexts.iter().map(|context| self.next(after_space(context))).collect())
        }

        fn step(&mut self, states: &[&String], tokens: &[u32]) -> Result<Vec<Next<String>>> {
            self.calls += 1;
            let grown = states.iter().zip(tokens).map(|(state, token)| {
                let mut state = (*state).clone();
                match self.alphabet.char(*token) {
                    Some(c) if in_word(c) => state.push(c),
                    _ => state.clear(),
                }
                self.next(state)
            });
            Ok(grown.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::toy::Lexicon;
    use super::*;

    const WORDS: &[(&str, f32)] = &[
        ("the", 8.0),
        ("then", 4.0),
        ("there", 2.0),
        ("thereafter", 1.0),
        ("a", 8.0),
        ("don't", 5.0),
        ("The", 3.0),
        ("o-", 1.0),
        ("ox", 1.0),
    ];

    fn rests(typed: &str, search: &Search) -> Vec<(String, f32)> {
        let alphabet = Alphabet::covering([], 0);
        let mut model = Lexicon { alphabet: &alphabet, words: WORDS, calls: 0 };
        let context = alphabet.encode(&format!("\n{typed}"));
        let start = model.start(&[&context]).unwrap();
        let inside = !partial_word(typed).is_empty();
        let found = suggest(&mut model, &alphabet, &[(&start[0], inside)], search).unwrap();
        found[0].iter().map(|s| (s.rest.clone(), s.probability)).collect()
    }

    #[test]
    fn the_most_probable_words_come_first_with_their_probability() {
        let found = rests("th", &Search::default());
        let words: Vec<_> = found.iter().map(|(word, _)| word.as_str()).collect();
        assert_eq!(words, ["e", "en", "ere"]);
        for ((_, probability), expected) in found.iter().zip([8.0, 4.0, 2.0]) {
            assert!((probability - expected / 15.0).abs() < 1e-6, "{probability}");
        }
    }

    #[test]
    fn what_is_typed_already_is_no_suggestion() {
        let words: Vec<_> = rests("the", &Search::default()).into_iter().map(|(w, _)| w).collect();
        assert_eq!(words, ["n", "re", "reafter"]);
    }

    #[test]
    fn forms_that_differ_in_case_are_one_word() {
        let found = rests("so ", &Search::default());
        let words: Vec<_> = found.iter().map(|(w, _)| w.as_str()).collect();
        assert_eq!(words, ["the", "a", "don't"]);
        assert!((found[0].1 - 11.0 / 33.0).abs() < 1e-6);
        let mut words = Vec::new();
        for (text, log_prob) in [("The", -2.0f32), ("the", -1.0), ("THE", -3.0)] {
            add(&mut words, text, log_prob);
        }
        assert_eq!((words.len(), words[0].text.as_str()), (1, "the"));
        let sum: f32 = [-2.0f32, -1.0, -3.0].iter().map(|p| p.exp()).sum();
        assert!((words[0].log_prob.exp() - sum).abs() < 1e-6);
    }

    #[test]
    fn words_end_with_a_letter_or_digit() {
        let words: Vec<_> = rests("o", &Search::default()).into_iter().map(|(w, _)| w).collect();
        assert_eq!(words, ["x"]);
    }

    #[test]
    fn a_narrow_beam_and_a_short_limit_find_less() {
        let narrow = Search { beam: 1, ..Search::default() };
        let words: Vec<_> = rests("", &narrow).into_iter().map(|(w, _)| w).collect();
        assert_eq!(words, ["the", "then"], "what lies on the one best path");
        let short = Search { longest: 2, ..Search::default() };
        let words: Vec<_> = rests("th", &short).into_iter().map(|(w, _)| w).collect();
        assert_eq!(words, ["e", "en"]);
    }

    #[test]
    fn many_places_are_searched_in_the_same_calls() {
        let alphabet = Alphabet::covering([], 0);
        let mut model = Lexicon { alphabet: &alphabet, words: WORDS, calls: 0 };
        let contexts: Vec<_> = ["th", "d", "a"].map(|t| alphabet.encode(t)).into();
        let contexts: Vec<_> = contexts.iter().map(Vec::as_slice).collect();
        let starts = model.start(&contexts).unwrap();
        let mut alone = Vec::new();
        let mut most = 0;
        for start in &starts {
            model.calls = 0;
            let found = suggest(&mut model, &alphabet, &[(start, true)], &Search::default());
            alone.extend(found.unwrap());
            most = most.max(model.calls);
        }
        model.calls = 0;
        let places: Vec<_> = starts.iter().map(|start| (start, true)).collect();
        let together = suggest(&mut model, &alphabet, &places, &Search::default()).unwrap();
        assert_eq!(together, alone);
        assert_eq!(model.calls, most);
    }

    #[test]
    fn the_partial_word_is_what_stands_after_the_last_separator() {
        assert_eq!(partial_word("I don't kn"), "kn");
        assert_eq!(partial_word("I don't"), "don't");
        assert_eq!(partial_word("well, "), "");
        assert_eq!(partial_word("a 'twas"), "twas");
        assert_eq!(partial_word(""), "");
    }
}
