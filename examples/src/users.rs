//! Who trains what: plays held out, users with lines to learn from and lines held back, and
//! windows of tokens.

use anyhow::{Result, bail};
use tern_engine::IGNORE;

use crate::text::Speaker;

/// Separates the roles of held-out plays from the rest.
///
/// Returns (public, held out).
pub fn split_plays(
    roles: Vec<Speaker>,
    held_out: &[String],
) -> Result<(Vec<Speaker>, Vec<Speaker>)> {
    for play in held_out {
        if !roles.iter().any(|role| role.collection() == Some(play)) {
            bail!("the held-out play {play} is not among the plays");
        }
    }
    let is_public = |role: &Speaker| {
        role.collection().is_none_or(|play| !held_out.iter().any(|name| name == play))
    };
    Ok(roles.into_iter().partition(is_public))
}

/// A person who types: what the model may learn from, and what it is measured on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The speaker's name.
    pub name: String,
    /// The first 80 % of the lines.
    pub train: Vec<String>,
    /// The last 20 %, rounded up.
    pub held_back: Vec<String>,
}

impl User {
    /// Characters of the lines to learn from, a line end a line counted.
    pub fn trained_characters(&self) -> usize {
        self.train.iter().map(|line| line.chars().count() + 1).sum()
    }
}

/// Speakers with at least two lines and `least` characters become users.
pub fn users(speakers: &[Speaker], least: usize) -> Vec<User> {
    let enough = |s: &&Speaker| s.lines.len() >= 2 && s.characters() >= least;
    let split = |s: &Speaker| {
        let train = s.lines.len() - s.lines.len().div_ceil(5);
        let (train, held_back) = s.lines.split_at(train);
        User { name: s.name.clone(), train: train.to_vec(), held_back: held_back.to_vec() }
    };
    speakers.iter().filter(enough).map(split).collect()
}

/// Windows of a token stream: `inputs` and `targets` are `[count, length]`, row-major, and a
/// target is the token after its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Windows there are.
    pub count: usize,
    /// Tokens a window.
    pub length: usize,
    /// Tokens to read; past the end of the stream 0.
    pub inputs: Vec<u32>,
    /// Tokens to predict; [`IGNORE`] in the context and past the end.
    pub targets: Vec<u32>,
}

impl Windows {
    /// Inputs and targets, window by window.
    pub fn iter(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.inputs.chunks(self.length).zip(self.targets.chunks(self.length))
    }
}

/// Cuts a stream so that each token from `from` on (the first one excepted) is a target exactly
/// once, and has at least `context` tokens before it in its window, or all that there are.
///
/// # Panics
/// If `context >= length`: no window would have a target.
pub fn windows(stream: &[u32], from: usize, length: usize, context: usize) -> Windows {
    assert!(context < length, "windows of {length} tokens can't have {context} of context");
    let mut cut = Windows { count: 0, length, inputs: Vec::new(), targets: Vec::new() };
    let mut next = from.max(1); // the first token that is no target yet
    let mut start = (next - 1).saturating_sub(context);
    while next < stream.len() {
        for at in start..start + length {
            let target = stream.get(at + 1).filter(|_| at + 1 >= next);
            cut.inputs.push(if at + 1 < stream.len() { stream[at] } else { 0 });
            cut.targets.push(target.copied().unwrap_or(IGNORE));
        }
        cut.count += 1;
        next = start + length + 1;
        start += length - context;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(name: &str, lines: usize) -> Speaker {
        Speaker { name: name.into(), lines: (0..lines).map(|i| format!("line {i}")).collect() }
    }

    #[test]
    fn held_out_plays_are_separated() {
        let roles = vec![speaker("a/X", 2), speaker("b/Y", 2), speaker("a/Z", 2)];
        let (public, held_out) = split_plays(roles.clone(), &["a".to_owned()]).unwrap();
        assert_eq!(public, [speaker("b/Y", 2)]);
        assert_eq!(held_out, [speaker("a/X", 2), speaker("a/Z", 2)]);
        let error = split_plays(roles, &["macbeth".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("macbeth"));
    }

    #[test]
    fn a_fifth_of_the_lines_is_held_back_rounded_up() {
        let found = users(&[speaker("one", 1), speaker("two", 2), speaker("eleven", 11)], 0);
        let sizes: Vec<_> = found.iter().map(|u| (u.train.len(), u.held_back.len())).collect();
        assert_eq!(sizes, [(1, 1), (8, 3)]);
        assert_eq!(found[1].held_back[0], "line 8");
        assert_eq!(users(&[speaker("two", 2), speaker("eleven", 11)], 15).len(), 1);
    }

    #[test]
    fn every_token_is_a_target_once_and_has_its_context() {
        for (length, context) in [(5, 0), (5, 2), (5, 4), (1, 0), (40, 3)] {
            for (n, from) in [(0, 0), (1, 1), (2, 0), (5, 5), (6, 1), (7, 3), (23, 0), (23, 9)] {
                let stream: Vec<u32> = (100..100 + n).collect();
                let cut = windows(&stream, from, length, context);
                assert_eq!(cut.inputs.len(), cut.count * length);
                let mut seen = Vec::new();
                for (inputs, targets) in cut.iter() {
                    for (at, target) in targets.iter().enumerate().filter(|(_, t)| **t != IGNORE) {
                        assert_eq!(inputs[at] + 1, *target);
                        assert!(inputs[0] == 100 || at >= context, "{at} of {length}, {context}");
                        seen.push(*target);
                    }
                }
                assert_eq!(seen, stream.get(from.max(1)..).unwrap_or_default());
            }
        }
    }
}
