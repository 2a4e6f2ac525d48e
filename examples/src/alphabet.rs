//! Characters as tokens.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Token of every character that the alphabet doesn't have.
pub const UNKNOWN: u32 = 0;

/// A bijection between characters and the tokens 1, 2, …; token 0 stands for all the rest.
/// Serialized as the string of its characters in token order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alphabet {
    chars: Vec<char>,
    tokens: BTreeMap<char, u32>,
}

impl Alphabet {
    /// Line end, printable ASCII (so that a model trained on one text can read another), and
    /// the up to `others` most frequent other characters of the texts.
    pub fn covering<'a>(texts: impl IntoIterator<Item = &'a str>, others: usize) -> Self {
        let mut counts = BTreeMap::<char, usize>::new();
        let foreign = |c: &char| !c.is_ascii() && !c.is_control();
        for c in texts.into_iter().flat_map(str::chars).filter(foreign) {
            *counts.entry(c).or_default() += 1;
        }
        let mut ranked: Vec<_> = counts.into_iter().collect();
        ranked.sort_by_key(|(c, count)| (std::cmp::Reverse(*count), *c));
        let foreign = ranked.into_iter().take(others).map(|(c, _)| c);
        Self::new(std::iter::once('\n').chain(' '..='~').chain(foreign).collect())
    }

    /// The characters that occur in the texts, in their order.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let found: BTreeSet<char> = texts.into_iter().flat_map(str::chars).collect();
        let ends = std::iter::once('\n').filter(|end| !found.contains(end));
        Self::new(ends.chain(found.iter().copied()).collect())
    }

    /// `chars` without duplicates.
    fn new(chars: Vec<char>) -> Self {
        let tokens = chars.iter().zip(1..).map(|(c, token)| (*c, token)).collect();
        Self { chars, tokens }
    }

    /// Tokens there are, [`UNKNOWN`] included: the size of a model's embedding and output.
    pub fn tokens(&self) -> usize {
        self.chars.len() + 1
    }

    /// Token of a character.
    pub fn token(&self, c: char) -> u32 {
        self.tokens.get(&c).copied().unwrap_or(UNKNOWN)
    }

    /// Character of a token; none for [`UNKNOWN`] and for numbers past the end.
    pub fn char(&self, token: u32) -> Option<char> {
        let at = (token as usize).checked_sub(1)?;
        self.chars.get(at).copied()
    }

    /// A text as tokens, one a character.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        text.chars().map(|c| self.token(c)).collect()
    }

    /// Tokens as text, unknown ones as U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        tokens.iter().map(|token| self.char(*token).unwrap_or('\u{fffd}')).collect()
    }

    /// Lines as one stream of tokens, each line followed by a line end, and a line end before
    /// the first, so that its first character has something to follow.
    pub fn encode_lines<'a>(&self, lines: impl IntoIterator<Item = &'a String>) -> Vec<u32> {
        let end = self.token('\n');
        let mut tokens = vec![end];
        for line in lines {
            tokens.extend(line.chars().map(|c| self.token(c)));
            tokens.push(end);
        }
        tokens
    }
}

impl From<Alphabet> for String {
    fn from(alphabet: Alphabet) -> String {
        alphabet.chars.into_iter().collect()
    }
}

impl TryFrom<String> for Alphabet {
    type Error = String;

    fn try_from(chars: String) -> Result<Self, String> {
        let alphabet = Self::new(chars.chars().collect());
        if alphabet.tokens.len() == alphabet.chars.len() {
            Ok(alphabet)
        } else {
            Err("a character occurs twice in the alphabet".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_characters_are_inverse() {
        let alphabet = Alphabet::covering(["naïve — ééé", "\u{7}"], 2);
        assert_eq!(alphabet.tokens(), 1 + 1 + 95 + 2);
        for token in 1..alphabet.tokens() as u32 {
            assert_eq!(alphabet.token(alphabet.char(token).unwrap()), token);
        }
        assert_eq!(alphabet.char(UNKNOWN), None);
        assert_eq!(alphabet.char(99), None);
        assert_eq!(alphabet.token('é'), 97);
        assert_eq!(alphabet.decode(&alphabet.encode("é—ï\u{7}")), "é\u{fffd}ï\u{fffd}");
    }

    #[test]
    fn serialization_keeps_the_tokens_and_refuses_duplicates() {
        let alphabet = Alphabet::covering(["ß"], 8);
        let json = serde_json::to_string(&alphabet).unwrap();
        assert_eq!(serde_json::from_str::<Alphabet>(&json).unwrap(), alphabet);
        let error = serde_json::from_str::<Alphabet>("\"abca\"").unwrap_err();
        assert!(error.to_string().contains("occurs twice"));
    }

    #[test]
    fn lines_are_framed_by_line_ends() {
        let alphabet = Alphabet::covering([], 0);
        let tokens = alphabet.encode_lines(&["ab".to_owned(), "c".to_owned()]);
        assert_eq!(alphabet.decode(&tokens), "\nab\nc\n");
    }
}
