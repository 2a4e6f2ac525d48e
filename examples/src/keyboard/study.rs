//! Ways to train on a device that can spare less, on some of the users: from the activations
//! that predictions left (1.10), and the last layer alone. What they save, and what they cost.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;
use tern_engine::{Device, Trainable};
use tern_fl::methods::personalize::{self, Batch, Client, Learner, Reuse, Shape, TrainingCost};
use tern_fl::tokens::Alphabet;

use super::client::{Recipe, typed};
use super::measure::{HeldBack, Meter};
use crate::progress::Progress;
use crate::public::PublicModel;
use crate::report::Table;
use crate::users::User;

/// A way to train.
pub struct Arm {
    /// Name in the table.
    pub name: &'static str,
    /// Whether activations of predictions are used.
    reuse: Reuse,
    /// Whether the last layer is trained alone.
    last_layer: bool,
    /// Whether there is an update as soon as a batch is typed, and no other.
    as_typed: bool,
    /// Place in [`ARMS`] of the one that it is compared with.
    against: usize,
}

const fn collected(name: &'static str, reuse: Reuse) -> Arm {
    Arm { name, reuse, last_layer: false, as_typed: false, against: 0 }
}

/// Place of [`ARMS`] that trains as typed without reuse.
const AS_TYPED: usize = 8;

/// The ways, the ordinary one first.
pub const ARMS: [Arm; 10] = [
    collected("ordinary", Reuse::Never),
    collected("exact", Reuse::EXACT),
    collected("stale, 1 update", Reuse::Within(1)),
    collected("stale, 4", Reuse::Within(4)),
    collected("stale, 16", Reuse::Within(16)),
    collected("stale, any", Reuse::Within(u32::MAX)),
    Arm { last_layer: true, ..collected("last layer", Reuse::Never) },
    Arm { last_layer: true, ..collected("last layer, exact", Reuse::EXACT) },
    Arm { as_typed: true, against: AS_TYPED, ..collected("as typed", Reuse::Never) },
    Arm { as_typed: true, against: AS_TYPED, ..collected("as typed, exact", Reuse::EXACT) },
];

/// What a way came to, over the users.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Updates of a user, the mean.
    pub updates: u32,
    /// Of these, from activations that a prediction had left.
    pub reused: u32,
    /// Most bytes of activations kept.
    pub kept_bytes: u64,
    /// Seconds of a user's predictions, keeping activations included.
    pub predicting: f64,
    /// Seconds of a user's training.
    pub training: f64,
    /// Share of both that is saved against the same without reuse, or with all layers.
    pub saved: f64,
    /// Customized models that were adopted.
    pub adopted: usize,
    /// Mean top-1 accuracy of the models in use on the users' held-back lines.
    pub top1: f64,
    /// The same of top-3.
    pub top3: f64,
}

/// The first records of a user as batches.
fn batches(alphabet: &Alphabet, user: &User, records: usize, shape: Shape) -> Result<Vec<Batch>> {
    let mut text = alphabet.encode_lines(&user.train);
    text.truncate(records + 1);
    typed(&text[..1], &text[1..], shape)
}

/// Whether a user types two batches: one to train on, one to hold back.
pub fn has_two_batches(alphabet: &Alphabet, user: &User, records: usize, how: &Recipe) -> bool {
    batches(alphabet, user, records, how.shape(records)).is_ok_and(|typed| typed.len() > 1)
}

/// The runtime's recipe for this way of training on so many batches.
fn recipe(how: &Recipe, arm: &Arm, batches: usize) -> personalize::Recipe {
    let passes = if arm.as_typed { 1 } else { how.passes };
    let trainable = match arm.last_layer {
        true => Trainable::Prefixes(vec!["output".into()]),
        false => Trainable::All,
    };
    let recipe = Recipe { passes, ..*how }.for_batches(batches);
    personalize::Recipe { trainable, reuse: arm.reuse, ..recipe }
}

/// A user's device after one training, and what that took: seconds of predicting, work, model in
/// use, whether it is a customized one.
struct Outcome {
    predicting: f64,
    work: TrainingCost,
    weights: Vec<f32>,
    adopted: bool,
}

/// All ways, each for every user, from the public model.
pub fn study(
    device: &Device,
    public: &Arc<PublicModel>,
    how: &Recipe,
    records: usize,
    users: &[User],
) -> Result<Vec<Row>> {
    ensure!(!users.is_empty(), "no users to try ways of training on");
    let alphabet = &public.card.alphabet;
    let shape = how.shape(records);
    let mut meter = Meter::new(device, public)?;
    let mut progress = Progress::new("reuse", (ARMS.len() * users.len()) as u64);
    let mut done = 0;
    let mut rows: Vec<Row> = Vec::with_capacity(ARMS.len());
    for arm in &ARMS {
        let mut row = Row { name: arm.name.into(), ..Row::default() };
        for user in users {
            let typed = batches(alphabet, user, records, shape)?;
            ensure!(typed.len() > 1, "{}: too little text for a batch", user.name);
            let recipe = recipe(how, arm, typed.len());
            let outcome = match arm.as_typed {
                true => as_typed(device, public, shape, &recipe, typed)?,
                false => collect(device, public, shape, &recipe, typed)?,
            };
            let held_back = HeldBack::new(alphabet, user, 0);
            let scores = meter.scores(&held_back, &outcome.weights)?;
            let part = 1.0 / users.len() as f64;
            row.updates += outcome.work.updates;
            row.reused += outcome.work.reused;
            row.kept_bytes = row.kept_bytes.max(outcome.work.kept_bytes);
            row.predicting += part * outcome.predicting;
            row.training += part * outcome.work.seconds;
            row.adopted += usize::from(outcome.adopted);
            row.top1 += part * scores.top1_rate();
            row.top3 += part * scores.top3_rate();
            done += 1;
            progress.update(done, None);
        }
        let mean = |all: u32| (f64::from(all) / users.len() as f64).round() as u32;
        (row.updates, row.reused) = (mean(row.updates), mean(row.reused));
        rows.push(row);
    }
    progress.finish();
    let seconds: Vec<f64> = rows.iter().map(|row| row.predicting + row.training).collect();
    for (at, arm) in ARMS.iter().enumerate() {
        rows[at].saved = 1.0 - seconds[at] / seconds[arm.against];
    }
    Ok(rows)
}

/// One training at the preset number of records, as the runtime's client does it.
fn collect(
    device: &Device,
    public: &PublicModel,
    shape: Shape,
    recipe: &personalize::Recipe,
    typed: Vec<Batch>,
) -> Result<Outcome> {
    let preset = typed.iter().map(Batch::counted).sum();
    let mut client = Client::new(device, &public.published, shape, recipe, preset)?;
    let started = Instant::now();
    for Batch { inputs, targets, .. } in typed {
        client.predict(inputs)?;
        client.observe(targets)?;
    }
    let predicting = started.elapsed().as_secs_f64();
    let round = client.customize(&mut || {})?;
    let round = round.ok_or_else(|| anyhow::anyhow!("the preset count is all that was typed"))?;
    let weights = client.weights().to_vec();
    Ok(Outcome { predicting, work: round.work, weights, adopted: round.adopted })
}

/// An update after each batch, and the same comparison in the end.
fn as_typed(
    device: &Device,
    public: &PublicModel,
    shape: Shape,
    recipe: &personalize::Recipe,
    mut typed: Vec<Batch>,
) -> Result<Outcome> {
    let mut learner = Learner::new(device, &public.card.spec, shape, recipe)?;
    learner.set_weights(public.weights())?;
    learner.start()?;
    let held_back = typed.split_off(Client::trained_of(typed.len()));
    let before = learner.score(&held_back)?.loss;
    let (mut predicting, mut work) = (0.0, TrainingCost::default());
    for mut batch in typed {
        let started = Instant::now();
        learner.predict(&batch.inputs)?;
        if recipe.reuse != Reuse::Never {
            let kept = learner.keep()?;
            work.kept_bytes = work.kept_bytes.max(kept.bytes());
            batch.kept = Some(kept);
        }
        predicting += started.elapsed().as_secs_f64();
        let started = Instant::now();
        work.reused += u32::from(learner.update(&batch)?);
        work.updates += 1;
        work.seconds += started.elapsed().as_secs_f64();
    }
    let adopted = learner.score(&held_back)?.loss < before;
    let weights = if adopted { learner.weights()? } else { public.weights().to_vec() };
    Ok(Outcome { predicting, work, weights, adopted })
}

/// The table of [`study`].
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "training",
        "updates",
        "reused",
        "kept MB",
        "predicting s",
        "training s",
        "saved",
        "top-1",
        "top-3",
        "given up",
    ]);
    let percent = |part: f64| format!("{:.1}", 100.0 * part);
    for (row, arm) in rows.iter().zip(&ARMS) {
        table.row([
            row.name.clone(),
            row.updates.to_string(),
            row.reused.to_string(),
            format!("{:.0}", row.kept_bytes as f64 / 1e6),
            format!("{:.2}", row.predicting),
            format!("{:.2}", row.training),
            percent(row.saved),
            percent(row.top1),
            percent(row.top3),
            percent(rows[arm.against].top1 - row.top1),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public::tiny;

    fn user(name: &str, saying: &str) -> User {
        let lines = |n: usize| vec![saying.to_owned(); n];
        User { name: name.into(), train: lines(250), held_back: lines(20) }
    }

    #[test]
    fn reuse_saves_forward_passes_and_what_is_exact_costs_nothing() {
        let (device, public) = (Device::cpu(), Arc::new(tiny()));
        let how = Recipe { rate: 1e-2, passes: 6, batch: 2, seed: 1 };
        let users = [user("ann", "so it goes"), user("bob", "never say never")];
        let rows = study(&device, &public, &how, 2400, &users).unwrap();
        assert_eq!(table(&rows).to_string().lines().count(), 2 + ARMS.len());
        let by = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        let [ordinary, exact, any] = ["ordinary", "exact", "stale, any"].map(by);
        // 30 windows are 15 batches, of which one is held back.
        assert_eq!((ordinary.updates, ordinary.reused, ordinary.kept_bytes), (84, 0, 0));
        assert_eq!((exact.updates, exact.reused), (84, 1));
        assert_eq!((exact.top1, exact.top3), (ordinary.top1, ordinary.top3), "the same model");
        assert_eq!((any.updates, any.reused, any.adopted <= 2), (84, 84, true));
        let (few, more) = (by("stale, 4"), by("stale, 16"));
        assert!(1 < few.reused && few.reused < more.reused && more.reused < 84);
        let [typed, at_once] = ["as typed", "as typed, exact"].map(by);
        assert_eq!((typed.updates, typed.reused, at_once.reused), (14, 0, 14));
        assert_eq!((typed.top1, typed.top3), (at_once.top1, at_once.top3));
        let [last, cheap] = ["last layer", "last layer, exact"].map(by);
        assert_eq!((last.reused, cheap.reused, last.top1 == cheap.top1), (0, 84, true));
        assert!(ordinary.adopted == 2 && ordinary.top1 > by("last layer").top1);
        assert!(study(&device, &public, &how, 2400, &[]).is_err());
    }

    #[test]
    fn every_typed_character_counts_once() {
        let alphabet = Alphabet::covering([], 0);
        let user = user("ann", "so it goes");
        let how = Recipe { rate: 1e-2, passes: 6, batch: 3, seed: 1 };
        for records in [30, 500, 2000] {
            let batches = batches(&alphabet, &user, records, how.shape(records)).unwrap();
            assert_eq!(batches.iter().map(Batch::counted).sum::<usize>(), records);
            let two = has_two_batches(&alphabet, &user, records, &how);
            assert_eq!((two, two), (batches.len() > 1, records > 30), "{records}");
        }
    }
}
