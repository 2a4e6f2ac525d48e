//! Roles as clients: the first four fifths of each one's lines train, the others test.

use std::path::Path;

use anyhow::{Result, ensure};
use tern_fl::tokens::Alphabet;
use tern_shaders::kernels::random::pcg4d;

use super::options::Options;
use crate::text::{Found, Refused, bundled, load, load_some, reasons};
use crate::users::{User, users};

/// The clients' texts, and those that nobody is trained on.
#[derive(Debug)]
pub struct Texts {
    /// Tokens of the experiment.
    pub alphabet: Alphabet,
    /// The lines that each client trains on.
    pub clients: Vec<Vec<Vec<u32>>>,
    /// Test lines.
    pub test: Vec<Vec<u32>>,
    /// Files and roles of one's own that can't take part, and why.
    pub refused: Refused,
}

impl Texts {
    /// The bundled roles, or one's own.
    pub fn load(options: &Options) -> Result<Self> {
        let (roles, refused) = match &options.data {
            Some(path) => own(path)?,
            None => (users(&load(&[&bundled("shakespeare-roles.txt.gz")?])?, 0), Vec::new()),
        };
        let lines = || roles.iter().flat_map(|role| role.train.iter().chain(&role.held_back));
        let alphabet = Alphabet::of(lines().map(String::as_str));
        let clients = match options.iid {
            false => roles.iter().map(|role| encode(&alphabet, &role.train)).collect(),
            true => {
                let all: Vec<&String> = roles.iter().flat_map(|role| &role.train).collect();
                let dealt = deal(&all, roles.len(), options.seed);
                dealt.iter().map(|lines| encode(&alphabet, lines)).collect()
            }
        };
        let mut left = options.test.map_or(usize::MAX, |most| most as usize);
        let mut test = Vec::new();
        for mut tokens in roles.iter().flat_map(|role| encode(&alphabet, &role.held_back)) {
            tokens.truncate(left.saturating_add(1));
            left -= tokens.len().saturating_sub(1);
            test.push(tokens);
        }
        Ok(Texts { alphabet, clients, test, refused })
    }
}

/// Lines as the model reads them: each from its first character, to its end.
fn encode(alphabet: &Alphabet, lines: &[String]) -> Vec<Vec<u32>> {
    lines.iter().map(|line| alphabet.encode(&format!("{line}\n"))).collect()
}

/// One's own texts: who has lines enough, and what can't take part.
fn own(path: &Path) -> Result<(Vec<User>, Refused)> {
    let Found { speakers, places, mut refused } = load_some(&[path])?;
    let (mut roles, mut short) = (Vec::new(), Vec::new());
    for speaker in speakers {
        match users(std::slice::from_ref(&speaker), 0).pop() {
            Some(role) => roles.push(role),
            None => short.push(speaker.name),
        }
    }
    refused.extend(short.into_iter().map(|name| {
        let at = places.get(&name).map_or("", String::as_str);
        let reason = format!("{at}: one line, expected one to train on and one to test");
        (name, reason)
    }));
    let why = reasons(&refused);
    ensure!(!roles.is_empty(), "{}: nobody has two lines{why}", path.display());
    Ok((roles, refused))
}

/// Lines in an order that the seed draws, dealt out to so many hands.
fn deal(lines: &[&String], hands: usize, seed: u32) -> Vec<Vec<String>> {
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|line| pcg4d([*line as u32, 0x11d, 0, seed]));
    let mut dealt = vec![Vec::new(); hands];
    for (place, line) in order.into_iter().enumerate() {
        dealt[place % hands].push(lines[line].clone());
    }
    dealt
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_client_is_a_role_and_the_last_fifth_of_its_lines_tests() {
        let options = Options::parse_from(["shakespeare"]);
        let texts = Texts::load(&options).unwrap();
        // The paper's 1,146 clients are of another edition: 3.6 million characters to train on,
        // 0.87 million to test on.
        assert_eq!(texts.clients.len(), 1280);
        let lines = |texts: &Texts| texts.clients.iter().map(Vec::len).sum::<usize>();
        let count = |lines: &[Vec<u32>]| lines.iter().map(Vec::len).sum::<usize>();
        let train = texts.clients.iter().map(|lines| count(lines)).sum::<usize>();
        let test = count(&texts.test);
        assert!(train > 3_500_000 && test > 870_000 && test < train / 3, "{train} {test}");
        // As many lines as the paper's clients have samples by its count of updates: 37.1 a round
        // of 5 passes in batches of 10, of 1,146 clients.
        let paper = 37.1 * 10.0 / 5.0 * 1146.0;
        assert!((lines(&texts) as f64 / paper - 1.0).abs() < 0.05, "{} lines", lines(&texts));
        assert_eq!(texts.alphabet.tokens(), 81, "79 characters, the line's end, all others");

        let few = Texts::load(&Options { test: Some(5000), ..options.clone() }).unwrap();
        let counted = |text: &Vec<u32>| text.len().saturating_sub(1);
        assert_eq!(few.test.iter().map(counted).sum::<usize>(), 5000);

        let dealt = Texts::load(&Options { iid: true, ..options }).unwrap();
        assert_eq!((dealt.clients.len(), &dealt.test), (1280, &texts.test));
        assert_eq!(lines(&dealt), lines(&texts));
        let spread = |texts: &[Vec<Vec<u32>>]| {
            let lengths = || texts.iter().map(Vec::len);
            lengths().max().unwrap_or(0) as f64 / lengths().min().unwrap_or(1) as f64
        };
        assert!(spread(&dealt.clients) * 20.0 < spread(&texts.clients), "roles are far from alike");
    }

    #[test]
    fn who_cannot_take_part_is_refused_by_name_and_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.txt");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let data = Some(path.clone());
            Texts::load(&Options { data, ..Options::parse_from(["shakespeare"]) })
        };
        let error = load("@a\none line\n").unwrap_err().to_string();
        assert!(error.contains("nobody has two lines; a: ") && error.contains("mine.txt:1: one"));
        let texts = load("@a\none line\n@b\nso\nit\ngoes\n@\nnobody's\n").unwrap();
        assert_eq!((texts.clients.len(), texts.test.len()), (1, 1));
        let reasons = texts.refused.iter().map(|(_, reason)| reason.as_str());
        let reasons: Vec<&str> = reasons.collect();
        assert!(reasons[0].contains("mine.txt:7") && reasons[1].contains("mine.txt:1: one line"));
    }
}
