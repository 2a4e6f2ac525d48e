//! Roles as clients: the first four fifths of each one's lines train, the others test.

use anyhow::{Result, ensure};
use tern_shaders::cpu::random::pcg4d;

use super::options::Options;
use crate::alphabet::Alphabet;
use crate::text::{bundled, load};
use crate::users::users;

/// The clients' texts, and those that nobody is trained on.
#[derive(Debug)]
pub struct Texts {
    /// Tokens of the experiment.
    pub alphabet: Alphabet,
    /// What each client trains on.
    pub clients: Vec<Vec<u32>>,
    /// Test lines, by role.
    pub test: Vec<Vec<u32>>,
}

impl Texts {
    /// The bundled roles, or one's own.
    pub fn load(options: &Options) -> Result<Self> {
        let path = match &options.data {
            Some(path) => path.clone(),
            None => bundled("shakespeare-roles.txt.gz")?,
        };
        let roles = users(&load(&[&path])?, 0);
        ensure!(!roles.is_empty(), "{}: nobody has two lines", path.display());
        let lines = || roles.iter().flat_map(|role| role.train.iter().chain(&role.held_back));
        let alphabet = Alphabet::of(lines().map(String::as_str));
        let clients = match options.iid {
            false => roles.iter().map(|role| alphabet.encode_lines(&role.train)).collect(),
            true => {
                let all: Vec<&String> = roles.iter().flat_map(|role| &role.train).collect();
                deal(&all, roles.len(), options.seed)
                    .into_iter()
                    .map(|lines| alphabet.encode_lines(&lines))
                    .collect()
            }
        };
        let mut left = options.test.unwrap_or(usize::MAX);
        let mut test = Vec::new();
        for role in &roles {
            let mut tokens = alphabet.encode_lines(&role.held_back);
            tokens.truncate(left.saturating_add(1));
            left = left.saturating_sub(tokens.len().saturating_sub(1));
            test.push(tokens);
        }
        Ok(Texts { alphabet, clients, test })
    }
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
        let count = |texts: &[Vec<u32>]| texts.iter().map(Vec::len).sum::<usize>();
        let (train, test) = (count(&texts.clients), count(&texts.test));
        assert!(train > 3_000_000 && test > 600_000 && test < train / 3, "{train} {test}");
        assert_eq!(texts.alphabet.tokens(), 81, "79 characters, the line's end, all others");

        let few = Texts::load(&Options { test: Some(5000), ..options.clone() }).unwrap();
        let counted = |text: &Vec<u32>| text.len().saturating_sub(1);
        assert_eq!(few.test.iter().map(counted).sum::<usize>(), 5000);

        let dealt = Texts::load(&Options { iid: true, ..options }).unwrap();
        assert_eq!((dealt.clients.len(), dealt.test), (1280, texts.test));
        assert_eq!(count(&dealt.clients), train, "the same lines");
        let spread = |texts: &[Vec<u32>]| {
            let lengths = || texts.iter().map(Vec::len);
            lengths().max().unwrap_or(0) as f64 / lengths().min().unwrap_or(1) as f64
        };
        assert!(spread(&dealt.clients) * 20.0 < spread(&texts.clients), "roles are far from alike");
    }

    #[test]
    fn text_without_clients_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.txt");
        std::fs::write(&path, "@a\none line\n").unwrap();
        let options = Options { data: Some(path), ..Options::parse_from(["shakespeare"]) };
        assert!(Texts::load(&options).unwrap_err().to_string().contains("mine.txt"));
    }
}
