//! Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019) by a `tokenizer.json`
//! of Hugging Face: GPT-2's, and SmolLM2's, which takes digits one by one.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// What counts of a `tokenizer.json`.
#[derive(Deserialize)]
struct File {
    normalizer: Option<serde_json::Value>,
    pre_tokenizer: Step,
    model: Pairs,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Step {
    Sequence {
        pretokenizers: Vec<Step>,
    },
    Digits {
        individual_digits: bool,
    },
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Pairs {
    r#type: String,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    #[serde(default)]
    ignore_merges: bool,
}

/// Two tokens that become one; older files have them in one string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair([String; 2]),
}

/// A vocabulary and what is merged to get there.
#[derive(Clone, Debug)]
pub struct BytePairs {
    /// The token of each byte, where there is one.
    bytes: Vec<Option<u32>>,
    /// By pair: how late it is merged, and into what.
    merges: HashMap<(u32, u32), (usize, u32)>,
    /// Whether each digit is a piece of its own.
    digits: bool,
    tokens: usize,
}

/// The character that stands for a byte in vocabularies.
fn shown(byte: u8) -> char {
    let plain = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match plain(byte) {
        true => char::from(byte),
        false => {
            let before = (0..byte).filter(|b| !plain(*b)).count() as u32;
            char::from_u32(256 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    }
}

impl BytePairs {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// For a file that isn't one, or is of another kind.
    pub fn load(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(name)?;
        Self::parse(&text).with_context(name)
    }

    fn parse(text: &str) -> Result<Self> {
        let File { normalizer, pre_tokenizer, model } =
            serde_json::from_str(text).context("expected a tokenizer of byte-level byte pairs")?;
        ensure!(model.r#type == "BPE", "model of type {}, expected BPE", model.r#type);
        ensure!(!model.ignore_merges, "ignore_merges is true, expected false");
        if let Some(normalizer) = normalizer {
            bail!("normalizer {normalizer}, expected none");
        }
        let steps = match pre_tokenizer {
            Step::Sequence { pretokenizers } => pretokenizers,
            step => vec![step],
        };
        let digits = match steps[..] {
            [Step::ByteLevel { add_prefix_space: false, use_regex: true }] => false,
            [
                Step::Digits { individual_digits: true },
                Step::ByteLevel { add_prefix_space: false, use_regex: true },
            ] => true,
            _ => bail!("pre_tokenizer is another than digits one by one and bytes"),
        };
        let token = |text: &str| {
            let found = model.vocab.get(text).copied();
            found.with_context(|| format!("{text:?} of the merges is no token"))
        };
        let mut merges = HashMap::new();
        for (rank, merge) in model.merges.iter().enumerate() {
            let (left, right) = match merge {
                Merge::Pair([left, right]) => (left.as_str(), right.as_str()),
                Merge::Text(text) => {
                    text.split_once(' ').with_context(|| format!("{text:?} is no pair"))?
                }
            };
            let pair = (token(left)?, token(right)?);
            merges.entry(pair).or_insert((rank, token(&format!("{left}{right}"))?));
        }
        let bytes = (0..=u8::MAX).map(|byte| model.vocab.get(&shown(byte).to_string()).copied());
        let tokens = model.vocab.values().max().map_or(0, |most| *most as usize + 1);
        Ok(BytePairs { bytes: bytes.collect(), merges, digits, tokens })
    }

    /// One more than the largest token.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// A text as tokens.
    ///
    /// # Errors
    /// For a byte that the vocabulary lacks.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut known = HashMap::new();
        let mut tokens = Vec::new();
        let parts = match self.digits {
            true => isolated(text, char::is_numeric),
            false => vec![text],
        };
        for piece in parts.into_iter().flat_map(pieces) {
            if !known.contains_key(piece) {
                known.insert(piece, self.merge(piece)?);
            }
            tokens.extend(&known[piece]);
        }
        Ok(tokens)
    }

    /// The tokens of a piece: the pair that is merged first, and so on until none is left.
    fn merge(&self, piece: &str) -> Result<Vec<u32>> {
        let token = |byte: u8| {
            self.bytes[usize::from(byte)].with_context(|| format!("no token for the byte {byte}"))
        };
        let mut tokens = piece.bytes().map(token).collect::<Result<Vec<_>>>()?;
        loop {
            let pairs = tokens.windows(2).enumerate();
            let merges = pairs.filter_map(|(at, pair)| {
                let (rank, merged) = self.merges.get(&(pair[0], pair[1]))?;
                Some((*rank, at, *merged))
            });
            let Some((_, at, merged)) = merges.min() else { return Ok(tokens) };
            tokens[at] = merged;
            tokens.remove(at + 1);
        }
    }
}

/// A text cut before and after each such character.
fn isolated(text: &str, alone: impl Fn(char) -> bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| alone(*c)) {
        let end = at + c.len_utf8();
        parts.extend([&text[start..at], &text[at..end]]);
        start = end;
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Endings that GPT-2's pattern cuts off.
const ENDINGS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// What a run of characters in a piece is of. Vowel signs, which Unicode counts among the marks, go
/// with the letters here.
#[derive(PartialEq)]
enum Class {
    Space,
    Letter,
    Number,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        match c {
            _ if c.is_whitespace() => Class::Space,
            _ if c.is_numeric() => Class::Number,
            _ if c.is_alphabetic() => Class::Letter,
            _ => Class::Other,
        }
    }
}

/// Pieces of GPT-2's pattern: endings, words, numbers and other signs, each with the space before
/// it, and white space, whose last character goes with what follows.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(first_piece(rest));
        rest = after;
        Some(piece)
    })
}

/// Bytes of the first piece of a text that isn't empty.
fn first_piece(text: &str) -> usize {
    if let Some(ending) = ENDINGS.iter().find(|ending| text.starts_with(**ending)) {
        return ending.len();
    }
    let run = |text: &str, class: Class| text.find(|c| Class::of(c) != class).unwrap_or(text.len());
    let word = text.strip_prefix(' ').unwrap_or(text);
    let class = word.chars().next().map(Class::of);
    match class {
        Some(class) if class != Class::Space => text.len() - word.len() + run(word, class),
        _ => {
            let spaces = run(text, Class::Space);
            let last = text[..spaces].chars().next_back().map_or(0, char::len_utf8);
            // The last one before something else is left to that, unless it is the only one.
            match spaces == text.len() || spaces == last {
                true => spaces,
                false => spaces - last,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary that Hugging Face's `tokenizers` made of the bundled addresses, and what that
    /// makes of some lines (`tests/fixtures/make_fixtures.py`).
    #[test]
    fn tokens_are_those_of_hugging_face() {
        #[derive(Deserialize)]
        struct Line {
            text: String,
            tokens: Vec<u32>,
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let pairs = BytePairs::load(&folder.join("tokenizer.json")).unwrap();
        let lines = std::fs::read_to_string(folder.join("tokens.json")).unwrap();
        let lines: Vec<Line> = serde_json::from_str(&lines).unwrap();
        assert!(lines.len() > 20);
        for line in lines {
            assert_eq!(pairs.encode(&line.text).unwrap(), line.tokens, "{:?}", line.text);
        }
    }

    #[test]
    fn pieces_are_those_of_the_pattern() {
        let all = |text| pieces(text).collect::<Vec<_>>();
        assert_eq!(
            all("it's  so, 12 o'clock"),
            ["it", "'s", " ", " so", ",", " 12", " o", "'", "clock"]
        );
        assert_eq!(all("a\n\n b \t"), ["a", "\n\n", " b", " \t"]);
        assert_eq!(all(" ?!\tx"), [" ?!", "\t", "x"]);
        assert_eq!(isolated("in 1861 a", char::is_numeric), ["in ", "1", "8", "6", "1", " a"]);
    }

    #[test]
    fn other_tokenizers_are_refused() {
        let parse = |pre: &str, kind: &str| {
            let model = format!(r#"{{"type":"{kind}","vocab":{{"a":0}},"merges":[]}}"#);
            let text = format!(r#"{{"normalizer":null,"pre_tokenizer":{pre},"model":{model}}}"#);
            BytePairs::parse(&text).map_err(|e| format!("{e:#}"))
        };
        let bytes = r#"{"type":"ByteLevel","add_prefix_space":false}"#;
        let pairs = parse(bytes, "BPE").unwrap();
        assert_eq!(pairs.encode("aa").unwrap(), [0, 0]);
        assert!(pairs.encode("b").unwrap_err().to_string().contains("byte 98"));
        assert!(parse(bytes, "WordPiece").unwrap_err().contains("WordPiece, expected BPE"));
        let prefixed = bytes.replace("false", "true");
        assert!(parse(&prefixed, "BPE").unwrap_err().contains("pre_tokenizer"));
        assert!(parse(r#"{"type":"Metaspace"}"#, "BPE").is_err());
    }
}
