//! Users type on their devices until their text is over, and what that made of their models is
//! measured.

use std::sync::Arc;

use anyhow::{Context, Result};
use tern_engine::save_model;

use super::client::{Client, customize, merge, observe};
use super::measure::{HeldBack, Worth};
use super::options::Scale;
use super::predictor::Predictor;
use super::public::PublicModel;
use super::results::{MergeResult, UserResult};
use super::workbench::Workbench;
use crate::alphabet::Alphabet;
use crate::progress::Progress;
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
    bench: &mut Workbench,
    scale: &Scale,
    records: usize,
    users: &[User],
    newer: impl FnOnce() -> Result<Option<Arc<PublicModel>>>,
    report: &Report,
) -> Result<Vec<UserResult>> {
    let public = bench.public().clone();
    let alphabet = &public.card.alphabet;
    let mut clients: Vec<Client> =
        users.iter().map(|user| Client::new(&user.name, &public, records)).collect();
    let mut typists: Vec<Typist> = users.iter().map(|user| Typist::new(alphabet, user)).collect();

    let mut progress = Progress::new("personalize", steps(bench, scale, records, users) as u64);
    let mut done = 0;
    loop {
        let texts: Vec<Vec<u32>> = clients
            .iter()
            .zip(&mut typists)
            .map(|(client, typist)| typist.next(client.missing()))
            .collect();
        let mut all: Vec<&mut Client> = clients.iter_mut().collect();
        observe(bench, &mut all, &texts.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        if !all.iter().any(|client| client.is_ready()) {
            break;
        }
        customize(bench, &mut all, &scale.recipe, |now, loss| {
            done += now as u64;
            progress.update(done, loss);
        })?;
    }
    progress.finish();
    let worth = measure(bench, scale, users, &clients)?;

    // As they are in the table; a newer public model is another story.
    let files = clients.iter().map(|client| save(client, report)).collect::<Result<Vec<_>>>()?;
    let mut merges = vec![None; users.len()];
    if let Some(newer) = newer()? {
        let mut all: Vec<&mut Client> = clients.iter_mut().collect();
        merge(bench, &mut all, &newer)?;
        for ((merge, client), user) in merges.iter_mut().zip(&clients).zip(users) {
            let held_back = HeldBack::new(alphabet, user, 0);
            let public = held_back.scores(bench, newer.weights())?.top1();
            let in_use = held_back.scores(bench, client.weights())?.top1();
            let outcome = client.merged().copied();
            *merge = outcome.map(|outcome| MergeResult { outcome, public, in_use });
        }
    }

    let per_record = public.training_flops() * scale.recipe.passes as u64;
    let mut results = Vec::with_capacity(users.len());
    let measured = users.iter().zip(worth).zip(files.into_iter().zip(merges));
    for (client, ((user, [before, after]), (file, merge))) in clients.iter().zip(measured) {
        let rounds = client.rounds().to_vec();
        let trained: usize = rounds.iter().map(|round| round.trained).sum();
        results.push(UserResult {
            name: client.name().to_owned(),
            typed: user.trained_characters(),
            file,
            public: before,
            customized: after,
            training_flops: per_record * trained as u64,
            rounds,
            merge,
        });
    }
    Ok(results)
}

/// Steps that all trainings will take: those side by side count once.
fn steps(bench: &Workbench, scale: &Scale, records: usize, users: &[User]) -> usize {
    let rounds = |user: &User| user.trained_characters() / records;
    let each = scale.recipe.steps(Client::trained_of(records) + 1);
    (1..)
        .map(|round| users.iter().filter(|user| rounds(user) >= round).count())
        .take_while(|ready| *ready > 0)
        .map(|ready| ready.div_ceil(bench.replicas()) * each)
        .sum()
}

/// The public model and the one in use, on each user's held-back lines.
fn measure(
    bench: &mut Workbench,
    scale: &Scale,
    users: &[User],
    clients: &[Client],
) -> Result<Vec<[Worth; 2]>> {
    let public = bench.public().clone();
    let held_back: Vec<HeldBack> =
        users.iter().map(|u| HeldBack::new(&public.card.alphabet, u, scale.typed)).collect();
    let total: usize = held_back.iter().map(|h| 2 * h.length()).sum();
    let mut progress = Progress::new("measure", total as u64);
    let mut predictor = Predictor::new(bench.device(), &public)?;
    let mut done = 0;
    let mut worth = Vec::with_capacity(users.len());
    for (held_back, client) in held_back.iter().zip(clients) {
        let mut of = |weights: &[f32]| {
            let worth = held_back.measure(bench, &mut predictor, weights)?;
            done += held_back.length() as u64;
            progress.update(done, None);
            anyhow::Ok(worth)
        };
        worth.push([of(public.weights())?, of(client.weights())?]);
    }
    progress.finish();
    Ok(worth)
}

/// Saves a customized model as `own/<user>.safetensors`.
fn save(client: &Client, report: &Report) -> Result<Option<String>> {
    if !client.is_customized() {
        return Ok(None);
    }
    let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
    let file = format!("own/{}.safetensors", client.name().chars().map(plain).collect::<String>());
    let path = report.path(&file);
    let folder = report.path("own");
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    save_model(&path, client.parameters(), client.weights())?;
    Ok(Some(file))
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
