//! Ratings of films (MovieLens): item factors that are trained together, user factors that stay
//! on the device.
//!
//! Matrix factorization: a rating is the user's mean plus the product of the user's factors and
//! the film's. A client solves for its user's factors whenever it gets films' factors (ridge
//! regression on its own ratings), takes gradient steps on the films', and sends what changed of
//! these, so that neither ratings nor user factors ever leave it.

mod ratings;

use anyhow::Result;
use serde::Serialize;
use tern_engine::Device;
use tern_fl::layout::{ModelKind, TensorSpec};
use tern_fl::metrics::Metrics;
use tern_fl::plan::{Encoding, StrategySpec, Updates};
use tern_fl::server::local::{self, Client};
use tern_fl::trainer::{Job, Trained, Trainer};
use tern_fl::{Error, Layout, RunPlan, TaskSpec};

pub use ratings::Ratings;

use super::options::Scale;
use crate::progress::Progress;
use crate::report::Table;

/// Factors of a user and of a film.
const FACTORS: usize = 8;
/// What user factors are pulled to zero by, in ratings.
const RIDGE: f32 = 2.0;
/// Learning rate of a device's steps on film factors.
const RATE: f32 = 0.05;

/// A user's device.
#[derive(Clone)]
pub struct User {
    /// Film and rating.
    ratings: Vec<(usize, f32)>,
    /// The user's last rating, which nothing is trained on.
    held_out: (usize, f32),
}

/// What a way to train came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Root of the mean squared error on every user's held-out rating.
    pub rmse: f64,
    /// Bytes of updates, the mean of a round.
    pub up: f64,
    /// Bytes of models, the mean of a round.
    pub down: f64,
    /// Round, and the error after it, now and then.
    pub curve: Vec<(f64, f64)>,
}

impl User {
    fn mean(&self) -> f32 {
        self.ratings.iter().map(|(_, rating)| rating).sum::<f32>() / self.ratings.len() as f32
    }

    /// The factors that explain the user's ratings best: ridge regression.
    fn factors(&self, films: &[f32]) -> [f32; FACTORS] {
        let mean = self.mean();
        let mut a = [[0.0; FACTORS]; FACTORS];
        let mut b = [0.0; FACTORS];
        for (at, row) in a.iter_mut().enumerate() {
            row[at] = RIDGE;
        }
        for (film, rating) in &self.ratings {
            let film = &films[film * FACTORS..][..FACTORS];
            for ((row, b), x) in a.iter_mut().zip(&mut b).zip(film) {
                *b += x * (rating - mean);
                row.iter_mut().zip(film).for_each(|(a, y)| *a += x * y);
            }
        }
        solve(a, b)
    }

    /// What a rating is expected to be.
    fn expected(&self, films: &[f32], film: usize) -> f32 {
        self.mean() + dot(&self.factors(films), &films[film * FACTORS..][..FACTORS])
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Gaussian elimination; the ridge makes every pivot positive.
fn solve(mut a: [[f32; FACTORS]; FACTORS], mut b: [f32; FACTORS]) -> [f32; FACTORS] {
    for i in 0..FACTORS {
        let (pivot, value) = (a[i], b[i]);
        for (row, b) in a[i + 1..].iter_mut().zip(&mut b[i + 1..]) {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(pivot).for_each(|(x, y)| *x -= factor * y);
            *b -= factor * value;
        }
    }
    for i in (0..FACTORS).rev() {
        let known = dot(&a[i][i + 1..], &b[i + 1..]);
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

impl Trainer for User {
    fn samples(&self) -> u32 {
        self.ratings.len() as u32
    }

    fn train(&mut self, task: &TaskSpec, job: &Job) -> Result<Trained, Error> {
        let mut films = (*job.model).clone();
        let (mean, mut sum) = (self.mean(), 0.0);
        let steps = task.training.steps.unwrap_or(1);
        for _ in 0..steps {
            let user = self.factors(&films);
            sum = 0.0;
            for (film, rating) in &self.ratings {
                let film = &mut films[film * FACTORS..][..FACTORS];
                let error = rating - mean - dot(&user, film);
                sum += f64::from(error).powi(2);
                film.iter_mut().zip(user).for_each(|(x, u)| *x += RATE * error * u);
            }
        }
        films.iter_mut().zip(&*job.model).for_each(|(x, start)| *x -= start);
        let loss = sum / self.ratings.len() as f64;
        let metrics = Metrics::from([("loss".to_string(), loss)]);
        Ok(Trained::new(films, self.samples(), metrics))
    }

    fn evaluate(&mut self, _: &TaskSpec, model: &[f32]) -> Result<(u32, Metrics), Error> {
        Ok((1, Metrics::from([("loss".to_string(), self.error(model))])))
    }
}

impl User {
    /// The squared error of the held-out rating.
    fn error(&self, films: &[f32]) -> f64 {
        let (film, rating) = self.held_out;
        f64::from(rating - self.expected(films, film)).powi(2)
    }
}

/// Trains film factors in full precision and with ternary updates; the floor is every user's own
/// mean.
pub fn run(ratings: &Ratings, scale: &Scale, seed: u32, device: &Device) -> Result<Vec<Row>> {
    let shape = vec![ratings.films, FACTORS];
    let model = ModelKind::Tensors(vec![TensorSpec { name: "films".into(), shape }]);
    let layout = Layout::of(&model)?;
    let mut initial = vec![0.0; layout.elements()];
    // Small and different, or no factor would ever differ from another.
    for (at, x) in initial.iter_mut().take(ratings.films * FACTORS).enumerate() {
        let hash = (at as u32 ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        *x = ((hash ^ hash >> 15) >> 8) as f32 / (1 << 24) as f32 * 0.2 - 0.1;
    }
    let users = ratings.users.iter();
    let users = users.map(|(train, held_out)| User { ratings: train.clone(), held_out: *held_out });
    // The clients are away while a run looks at its models.
    let measured: Vec<User> = users.collect();
    let numbered = measured.iter().cloned().enumerate();
    let mut clients: Vec<Client<User>> =
        numbered.map(|(number, user)| Client::numbered(number, user)).collect();
    let rmse = |model: &[f32]| {
        let errors = measured.iter().map(|user| user.error(model));
        (errors.sum::<f64>() / measured.len() as f64).sqrt()
    };
    let floor = rmse(&vec![0.0; layout.elements()]);
    let mut rows = vec![Row {
        name: "the user's mean".into(),
        rmse: floor,
        up: 0.0,
        down: 0.0,
        curve: [0, scale.rounds].map(|round| (f64::from(round), floor)).into(),
    }];
    for (name, uplink) in [("full precision", Encoding::Full), ("ternary", Encoding::Ternary)] {
        let mut plan = RunPlan::new("movielens", model.clone(), scale.rounds);
        plan.seed = seed;
        plan.cohort.size = scale.cohort.min(clients.len() as u32);
        plan.cohort.minimum = plan.cohort.size.div_ceil(2);
        plan.training.steps = Some(scale.steps);
        plan.updates.uplink = uplink;
        // Users count by their ratings alone.
        plan.updates.max_over_median = Updates::ANY_OVER_MEDIAN;
        // Few of a cohort know a film, so that means are small: the server scales them.
        plan.strategy =
            StrategySpec::Adam { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-4 };
        // Journal and models are of no use after the run.
        let folder = tempfile::tempdir()?;
        let mut progress = Progress::new(name, u64::from(scale.rounds));
        let options = local::Options::new(device, folder.path());
        let (mut up, mut down) = (0, 0);
        let mut curve = Vec::new();
        let outcome = local::run(&plan, Some(&initial), &mut clients, options, |round, model| {
            up += round.traffic.uploaded;
            down += round.traffic.downloaded;
            let loss = round.committed.training.get("loss").map(|loss| *loss as f32);
            let number = round.committed.round;
            if scale.due(number) {
                curve.push((f64::from(number), rmse(model)));
            }
            progress.update(u64::from(number), loss);
        });
        let rmse = rmse(&outcome?.model);
        progress.finish();
        let [up, down] = [up, down].map(|bytes| bytes as f64 / f64::from(scale.rounds));
        rows.push(Row { name: name.into(), rmse, up, down, curve });
    }
    Ok(rows)
}

/// The rows as a table.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["", "RMSE", "up kB/round", "down kB/round"]);
    for row in rows {
        let [up, down] = [row.up, row.down].map(|bytes| format!("{:.1}", bytes / 1e3));
        table.row([row.name.clone(), format!("{:.3}", row.rmse), up, down]);
    }
    table
}

#[cfg(test)]
mod tests;
