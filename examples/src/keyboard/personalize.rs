//! Users type on their devices until their text is over, and what that made of their models is
//! measured.

use std::sync::Arc;

use anyhow::{Context, Result};
use tern_engine::{Device, save_model};
use tern_fl::methods::personalize::{Client, Round};
use tern_fl::tokens::Alphabet;

use super::client::Keyboard;
use super::measure::{HeldBack, Meter, Worth};
use super::options::Scale;
use super::results::{MergeResult, UserResult};
use crate::progress::Progress;
use crate::public::PublicModel;
use crate::report::Report;
use crate::users::User;

/// What a user will type, line by line.
struct Typist {
    lines: std::vec::IntoIter<Vec<u32>>,
}

impl Typist {
    fn new(alphabet: &Alphabet, user: &User) -> Self {
        let lines = user.train.iter().map(|line| alphabet.encode(&format!("{line}\n")));
        Typist { lines: lines.collect::<Vec<_>>().into_iter() }
    }

    /// Whole lines of `characters` or a little more; fewer where the text ends.
    fn next(&mut self, characters: usize) -> Vec<u32> {
        let mut typed = Vec::new();
        while typed.len() < characters {
            match self.lines.next() {
                Some(line) => typed.extend(line),
                None => break,
            }
        }
        typed
    }
}

/// 1.5 to 1.8 for every user, and the measurement before and after; then what becomes of the
/// public model that `newer` gives, if it does.
pub fn personalize(
    device: &Device,
    public: &Arc<PublicModel>,
    scale: &Scale,
    records: usize,
    users: &[User],
    newer: impl FnOnce() -> Result<Option<Arc<PublicModel>>>,
    report: &Report,
) -> Result<Vec<UserResult>> {
    let batches = scale.recipe.batches(records);
    let each = (scale.recipe.passes * Client::trained_of(batches)) as u64;
    let collections: usize = users.iter().map(|user| user.trained_characters() / records).sum();
    let mut progress = Progress::new("personalize", collections as u64 * each);
    let mut done = 0;
    let mut keyboards = Vec::with_capacity(users.len());
    for user in users {
        let recipe = &scale.recipe;
        let mut keyboard = Keyboard::new(device, &user.name, public, recipe, (records, batches))?;
        let mut typist = Typist::new(&public.card.alphabet, user);
        loop {
            let text = typist.next(keyboard.missing());
            if text.is_empty() {
                break;
            }
            keyboard.type_text(&text)?;
            let trained = keyboard.customize(&mut || {
                done += 1;
                progress.update(done, None);
            })?;
            if let Some(round) = trained {
                progress.say(&told(&user.name, &round));
            }
        }
        keyboards.push(keyboard);
    }
    progress.finish();
    let mut meter = Meter::new(device, public)?;
    let worth = measure(&mut meter, public, scale, users, &keyboards)?;

    // As they are in the table; a newer public model is another story.
    let files = (1..).zip(&keyboards).map(|own| save(own, public, report));
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut merges = vec![None; users.len()];
    if let Some(newer) = newer()? {
        for ((merge, keyboard), user) in merges.iter_mut().zip(&mut keyboards).zip(users) {
            let outcome = keyboard.merge(&newer)?;
            let held_back = HeldBack::new(&public.card.alphabet, user, 0);
            let public = meter.scores(&held_back, newer.weights())?.top1_rate();
            let in_use = meter.scores(&held_back, keyboard.weights())?.top1_rate();
            *merge = Some(MergeResult { outcome, public, in_use });
        }
    }

    let mut results = Vec::with_capacity(users.len());
    let measured = users.iter().zip(worth).zip(files.into_iter().zip(merges));
    for (keyboard, ((user, [before, after]), (file, merge))) in keyboards.iter().zip(measured) {
        results.push(UserResult {
            name: user.name.clone(),
            typed: user.trained_characters(),
            file,
            public: before,
            customized: after,
            training_flops: keyboard.training_flops(),
            rounds: keyboard.rounds().to_vec(),
            merge,
        });
    }
    Ok(results)
}

/// What a training came to, on the records that it held back.
fn told(name: &str, round: &Round) -> String {
    format!(
        "{name}: {} characters typed; loss on the last of them {:.3} by the public model, {:.3} by \
         one's own{}",
        round.records,
        round.loss_public,
        round.loss_after,
        if round.adopted { "" } else { ", which is not taken" }
    )
}

/// The public model and the one in use, on each user's held-back lines.
fn measure(
    meter: &mut Meter,
    public: &PublicModel,
    scale: &Scale,
    users: &[User],
    keyboards: &[Keyboard],
) -> Result<Vec<[Worth; 2]>> {
    let held_back: Vec<HeldBack> =
        users.iter().map(|u| HeldBack::new(&public.card.alphabet, u, scale.typed)).collect();
    let total: usize = held_back.iter().map(|h| 2 * h.length()).sum();
    let mut progress = Progress::new("measure", total as u64);
    let mut done = 0;
    let mut worth = Vec::with_capacity(users.len());
    for (held_back, keyboard) in held_back.iter().zip(keyboards) {
        let mut of = |weights: &[f32]| {
            let worth = meter.measure(held_back, weights)?;
            done += held_back.length() as u64;
            progress.update(done, None);
            anyhow::Ok(worth)
        };
        worth.push([of(public.weights())?, of(keyboard.weights())?]);
    }
    progress.finish();
    Ok(worth)
}

/// Saves a customized model as `own/<user>-<number>.safetensors`; names may differ in characters
/// that a file's can't have.
fn save(
    (number, own): (usize, &Keyboard),
    public: &PublicModel,
    report: &Report,
) -> Result<Option<String>> {
    if !own.is_customized() {
        return Ok(None);
    }
    let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
    let name: String = own.name().chars().map(plain).collect();
    let path = report.path(&format!("own/{name}-{number}.safetensors"));
    let folder = report.path("own");
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    save_model(&path, &public.parameters, own.weights())?;
    Ok(Some(path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typist_types_whole_lines() {
        let alphabet = Alphabet::covering([], 0);
        let lines = ["one", "two", "three"].map(str::to_owned).to_vec();
        let user = User { name: "ann".into(), train: lines, held_back: Vec::new() };
        let mut typist = Typist::new(&alphabet, &user);
        let mut next = |n| alphabet.decode(&typist.next(n));
        assert_eq!([next(0), next(5), next(1), next(9)], ["", "one\ntwo\n", "three\n", ""]);
    }
}
