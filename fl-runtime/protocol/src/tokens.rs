//! Text as tokens: by characters or bytes.
//!
//! ```
//! use tern_protocol::tokens::{Alphabet, Tokens};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! assert_eq!(Tokens::Bytes.encode("hi"), [104, 105]);
//! // ASCII has no Cyrillic letter, and nothing is learned from unknown characters.
//! let error = Tokens::Ascii.check(["это"]).unwrap_err().to_string();
//! assert!(error.contains("100.0 % ('о', 'т', 'э')"), "{error}");
//! let own = Tokens::Alphabet(Alphabet::of(["это"]));
//! own.check(["это"])?;
//! assert_eq!((own.vocabulary(), own.encode("то\n")), (5, vec![3, 2, 1]));
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Token of every character that an alphabet doesn't have.
pub const UNKNOWN: u32 = 0;

/// Largest share of characters that a text may have and an alphabet not: what is beyond it would
/// be learned as if it were one character.
pub const MAX_UNKNOWN: f64 = 0.01;

/// Unknown characters that a refusal names.
const EXAMPLES: usize = 5;

/// How text becomes tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokens {
    /// 97 tokens: 0 is any other character, 1 the line's end, then ASCII from the space to ~.
    #[default]
    Ascii,
    /// 256 tokens: the bytes of UTF-8.
    Bytes,
    /// The characters of an alphabet, and 0 for all others.
    Alphabet(Alphabet),
}

impl Tokens {
    /// Number of different tokens.
    pub fn vocabulary(&self) -> usize {
        match self {
            Tokens::Ascii => 97,
            Tokens::Bytes => 256,
            Tokens::Alphabet(alphabet) => alphabet.tokens(),
        }
    }

    /// A text as tokens.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self {
            Tokens::Bytes => text.bytes().map(u32::from).collect(),
            Tokens::Ascii => text.chars().map(ascii).collect(),
            Tokens::Alphabet(alphabet) => alphabet.encode(text),
        }
    }

    /// Refuses texts that these tokens don't stand for.
    ///
    /// # Errors
    /// [`Error::Value`] if the share of unknown characters is above [`MAX_UNKNOWN`], with the most
    /// frequent of them.
    pub fn check<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<()> {
        match self {
            Tokens::Bytes => Ok(()),
            Tokens::Ascii => check(ascii, "ascii", texts),
            Tokens::Alphabet(alphabet) => alphabet.check(texts),
        }
    }
}

fn ascii(c: char) -> u32 {
    match c {
        '\n' => 1,
        ' '..='~' => c as u32 - 30,
        _ => UNKNOWN,
    }
}

/// [`Tokens::check`] of the tokens of that name.
fn check<'a>(
    token: impl Fn(char) -> u32,
    name: &str,
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let mut all = 0u32;
    let characters = texts.into_iter().flat_map(str::chars).inspect(|_| all += 1);
    let ranked = ranked(characters.filter(|c| token(*c) == UNKNOWN));
    let unknown: usize = ranked.iter().map(|(_, count)| count).sum();
    let share = unknown as f64 / f64::from(all.max(1));
    if share <= MAX_UNKNOWN {
        return Ok(());
    }
    let examples: Vec<_> = ranked.iter().take(EXAMPLES).map(|(c, _)| format!("{c:?}")).collect();
    let value = format!("{:.1} % ({})", 100.0 * share, examples.join(", "));
    let expected = format!(
        "at most {} % that the tokens of `{name}` lack; `bytes` or an alphabet of the text have \
         them",
        100.0 * MAX_UNKNOWN
    );
    Err(Error::value("share of unknown characters", value, expected))
}

/// Different characters with their numbers, the most frequent first.
fn ranked(characters: impl Iterator<Item = char>) -> Vec<(char, usize)> {
    let mut counts = BTreeMap::<char, usize>::new();
    for c in characters {
        *counts.entry(c).or_default() += 1;
    }
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by_key(|(c, count)| (std::cmp::Reverse(*count), *c));
    ranked
}

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
        let foreign = |c: &char| !c.is_ascii() && !c.is_control();
        let ranked = ranked(texts.into_iter().flat_map(str::chars).filter(foreign));
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

    /// [`Tokens::check`].
    ///
    /// # Errors
    /// As there.
    pub fn check<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<()> {
        check(|c| self.token(c), "alphabet", texts)
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

    fn try_from(chars: String) -> std::result::Result<Self, String> {
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
    fn tokens_are_below_the_vocabulary() {
        let own = Tokens::Alphabet(Alphabet::of(["я~"]));
        assert_eq!(own.encode("я~\n?"), [3, 2, 1, UNKNOWN]);
        // The alphabet of ASCII has the same tokens.
        let ascii = Alphabet::covering([], 0);
        assert_eq!(Tokens::Ascii.vocabulary(), ascii.tokens());
        for tokens in [Tokens::Ascii, Tokens::Bytes, own] {
            let text = "\u{0}~\u{7f}\u{10ffff}\n\t z";
            let all = tokens.encode(text);
            assert!(all.iter().all(|t| (*t as usize) < tokens.vocabulary()), "{all:?}");
            if tokens == Tokens::Ascii {
                assert_eq!(all, ascii.encode(text));
            }
            let json = serde_json::to_string(&tokens).unwrap();
            assert_eq!(serde_json::from_str::<Tokens>(&json).unwrap(), tokens);
        }
    }

    #[test]
    fn texts_of_unknown_characters_are_refused_with_share_and_examples() {
        let known = "a".repeat(98);
        let few = format!("{known}a\t");
        let alphabet = Tokens::Alphabet(Alphabet::of([known.as_str()]));
        for (tokens, name) in [(Tokens::Ascii, "`ascii`"), (alphabet, "`alphabet`")] {
            tokens.check([few.as_str(), ""]).unwrap();
            tokens.check([]).unwrap();
            // The share is of all texts together.
            let error = tokens.check([known.as_str(), "\t", "é"]).unwrap_err().to_string();
            assert!(error.contains("2.0 % ('\\t', 'é'), expected at most 1 %"), "{error}");
            assert!(error.contains(name), "{error}");
            let error = tokens.check(["你你好好好吗,再见啊啊"]).unwrap_err().to_string();
            assert!(error.contains("% ('好', '你', '啊', "), "{error}");
        }
        Tokens::Bytes.check(["你好"]).unwrap();
    }

    #[test]
    fn lines_are_framed_by_line_ends() {
        let alphabet = Alphabet::covering([], 0);
        let tokens = alphabet.encode_lines(&["ab".to_owned(), "c".to_owned()]);
        assert_eq!(alphabet.decode(&tokens), "\nab\nc\n");
    }
}
