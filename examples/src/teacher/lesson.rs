//! Teachers, students and what they are measured against, for one data set and one seed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tern_engine::nn::ModelSpec;
use tern_engine::{Device, Optimizer, save_model};
use tern_fl::ClientId;
use tern_fl::methods::teach::{
    Aggregator, Budget, Mechanism, Models, Noise, Part, Recipe, Samples, Service, Spent, Voters,
    accuracy, plurality,
};
use tern_fl::plan::LocalTraining;

use super::data::{Parts, Problem, Set};
use super::options::{Scale, mechanisms};
use super::results::{Asked, Lesson, Point, Student};
use crate::progress::Progress;

/// Samples of a request, unless they are so wide that it would be too large for a server.
const REQUEST: usize = 100;

/// Features of a request, at most: 4 bytes each, of the 1 MiB that a server takes.
const FEATURES: usize = 200_000;

/// Requests between two measurements of a student that is still asking.
const MEASURED: usize = 4;

/// A classifier with one hidden layer.
fn recipe(problem: &Problem, hidden: usize, training: LocalTraining, seed: u32) -> Recipe {
    let model = ModelSpec::mlp(problem.width, &[hidden], problem.classes);
    Recipe { model, classes: problem.classes, training, seed }
}

fn adam(learning_rate: f64, batch: u32) -> LocalTraining {
    let mut training = LocalTraining::default();
    training.optimizer = Optimizer::adamw();
    (training.learning_rate, training.batch) = (learning_rate, batch);
    training
}

/// Trains one model on all samples.
fn alone(
    device: &Device,
    recipe: &Recipe,
    samples: &Samples<'_>,
    label: Option<&str>,
) -> Result<Models> {
    let all = [Part { number: 0, rows: (0..samples.labels.len()).collect() }];
    let mut bar = label.map(|label| Progress::new(label, 0));
    let model = Models::train(device, recipe, samples, &all, &mut |done, total, loss| {
        if let Some(bar) = &mut bar {
            bar.resize(total);
            bar.update(done, loss);
        }
    })?;
    bar.into_iter().for_each(Progress::finish);
    Ok(model)
}

/// What a model knows of the test set.
fn tested(model: &mut Models, problem: &Problem) -> Result<f64> {
    let predicted = model.predict(&problem.test.features)?;
    Ok(accuracy(&predicted[0], &problem.test.labels))
}

/// The teachers of a problem.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Faculty {
    /// How many.
    pub teachers: usize,
    /// Parts, with a teacher or without.
    pub parts: usize,
    /// Parts without a teacher, and why.
    pub left_out: Vec<String>,
    /// Mean samples of a teacher.
    pub samples: usize,
    /// Mean accuracy of a teacher.
    pub teacher: f64,
    /// Accuracy of the plurality, without noise.
    pub ensemble: f64,
}

/// 2.1 and 2.2: the global side.
pub fn teach(
    device: &Device,
    problem: &Problem,
    scale: &Scale,
    seed: u32,
) -> Result<(Models, Faculty)> {
    let Parts { taught, count, left_out } = problem.parts(scale.teachers, seed)?;
    let mut training = adam(5e-3, 16);
    training.epochs = scale.teacher_epochs;
    let teacher = recipe(problem, scale.teacher_hidden, training, seed);
    let mut bar = Progress::new("teachers", 0);
    let private = problem.private.samples(problem.width);
    let mut teachers =
        Models::train(device, &teacher, &private, &taught, &mut |done, total, loss| {
            bar.resize(total);
            bar.update(done, loss);
        })
        .context("the teachers")?;
    bar.finish();
    let test = &problem.test;
    let by_teacher = teachers.predict(&test.features)?;
    let each: Vec<f64> = by_teacher.iter().map(|p| accuracy(p, &test.labels)).collect();
    let votes = teachers.votes(&test.features)?;
    let ensemble: Vec<u32> = votes.iter().map(|votes| plurality(votes) as u32).collect();
    let faculty = Faculty {
        teachers: taught.len(),
        parts: count,
        left_out,
        samples: taught.iter().map(|part| part.rows.len()).sum::<usize>() / taught.len(),
        teacher: each.iter().sum::<f64>() / each.len() as f64,
        ensemble: accuracy(&ensemble, &test.labels),
    };
    Ok((teachers, faculty))
}

/// Where the budget of a student is kept.
pub fn budget_file(folder: &Path, problem: &Problem, name: &str, seed: u32) -> PathBuf {
    folder.join(format!("budget-{}-{name}-{seed}.jsonl", problem.short_name()))
}

/// 2.3: who answers student `number`, whose budget is kept in `folder`.
pub fn service<V: Voters>(
    teachers: V,
    (number, name, mechanism): (usize, &str, Mechanism),
    problem: &Problem,
    scale: &Scale,
    seed: u32,
    folder: &Path,
) -> Result<Service<V>> {
    // Another noise for each, the same when the run is repeated.
    let noise = Noise::seeded(u64::from(seed) << 8 | number as u64);
    let path = budget_file(folder, problem, name, seed);
    // Before anything is lost.
    Budget::in_memory(scale.limit)?;
    // The budget of an earlier run into the same folder paid for other answers.
    if path.exists() {
        std::fs::remove_file(&path).with_context(|| format!("{}", path.display()))?;
    }
    let budget = Budget::open(&path, scale.limit)?;
    Ok(Service::new(teachers, Aggregator::new(mechanism, noise)?, budget))
}

/// What a student trains, in so many steps.
fn student(problem: &Problem, scale: &Scale, seed: u32, steps: u32) -> Recipe {
    let mut training = adam(2e-3, 32);
    training.steps = Some(steps);
    recipe(problem, scale.student_hidden, training, seed.wrapping_add(1000))
}

/// Runs everything for a problem; budgets and students are kept in `folder`.
pub fn run(
    device: &Device,
    problem: &Problem,
    scale: &Scale,
    seed: u32,
    folder: &Path,
) -> Result<Lesson> {
    let (mut teachers, faculty) = teach(device, problem, scale, seed)?;
    let mut students = Vec::new();
    for (number, (name, mechanism)) in mechanisms(faculty.parts).into_iter().enumerate() {
        let whose = (number, name, mechanism);
        let mut service = service(&mut teachers, whose, problem, scale, seed, folder)?;
        let who = (name, mechanism);
        students.push(learn(device, problem, scale, seed, &mut service, who, folder)?);
    }
    compare(device, problem, scale, seed, faculty, students)
}

/// Adds what the students are held against: one with true labels, and one who sees all that is
/// private.
pub fn compare(
    device: &Device,
    problem: &Problem,
    scale: &Scale,
    seed: u32,
    faculty: Faculty,
    students: Vec<Student>,
) -> Result<Lesson> {
    let most = students.iter().map(|s| s.asked.queries).max().unwrap_or(0) as usize;
    let (width, public) = (problem.width, &problem.public);
    let truth = Samples {
        features: &public.features[..most * width],
        width,
        labels: &public.labels[..most],
    };
    let learner = student(problem, scale, seed, scale.student_steps);
    // A budget may not allow a single label.
    let told = match most {
        0 => None,
        _ => Some(tested(&mut alone(device, &learner, &truth, None)?, problem)?),
    };
    let open = student(problem, scale, seed, scale.open_steps);
    let private = problem.private.samples(width);
    let open = tested(&mut alone(device, &open, &private, Some("not private"))?, problem)?;
    let Faculty { teachers, left_out, samples, teacher, ensemble, .. } = faculty;
    let true_labels = (most, told);
    Ok(Lesson {
        seed,
        teachers,
        left_out,
        samples,
        teacher,
        ensemble,
        students,
        true_labels,
        not_private: open,
    })
}

/// Whom a student asks.
pub trait Tutor {
    /// Labels of samples, or why the budget doesn't allow any.
    fn labels(&mut self, samples: &[f32]) -> Result<Result<Vec<Option<u32>>, String>>;

    /// What all labels cost so far.
    fn spent(&self) -> Spent;
}

impl<V: Voters> Tutor for Service<V> {
    fn labels(&mut self, samples: &[f32]) -> Result<Result<Vec<Option<u32>>, String>> {
        match self.answer(ClientId::numbered(0), samples) {
            Ok(labels) => Ok(Ok(labels)),
            Err(error @ tern_fl::Error::Budget { .. }) => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn spent(&self) -> Spent {
        Service::spent(self)
    }
}

/// 2.4 to 2.7: a student asks until it has labels for all it wants or the budget is spent,
/// learns from what it got, and serves itself: its model is in `folder`.
pub fn learn(
    device: &Device,
    problem: &Problem,
    scale: &Scale,
    seed: u32,
    tutor: &mut impl Tutor,
    (name, mechanism): (&str, Mechanism),
    folder: &Path,
) -> Result<Student> {
    let recipe = student(problem, scale, seed, scale.student_steps);
    let (at, queries) = ((problem, &recipe), scale.queries);
    let public = &problem.public;
    let wanted = queries.min(public.labels.len());
    let width = problem.width;
    let (mut got, mut truth) = (Set::default(), Vec::new());
    let (mut asked, mut requests, mut size) = (0, 0, request(width));
    let mut points = Vec::new();
    let mut refusal = None;
    let mut bar = Progress::new(name, wanted as u64);
    while asked < wanted {
        let rows = asked..wanted.min(asked + size);
        let samples = &public.features[rows.start * width..rows.end * width];
        let labels = match tutor.labels(samples)? {
            Ok(labels) => labels,
            // Less may still be affordable.
            Err(_) if size > 1 => {
                size = size.div_ceil(2);
                continue;
            }
            Err(reason) => {
                refusal = Some(reason);
                break;
            }
        };
        for (row, label) in rows.clone().zip(labels) {
            // 2.5: where the teachers don't agree there is no label to learn from.
            if let Some(label) = label {
                got.features.extend(&public.features[row * width..][..width]);
                got.labels.push(label);
                truth.push(public.labels[row]);
            }
        }
        asked = rows.end;
        requests += 1;
        bar.update(asked as u64, None);
        if requests % MEASURED == 1 && !got.labels.is_empty() {
            points.push(measured(device, at, tutor, &got)?.0);
        }
    }
    bar.finish();
    let (last, file) = match got.labels.is_empty() {
        false => {
            let (last, model) = measured(device, at, tutor, &got)?;
            // 2.7: the model is the student's, on its own device.
            let file = format!("student-{}-{name}-{seed}.safetensors", problem.short_name());
            let file = folder.join(file);
            save_model(&file, &recipe.model.build()?.0, &model.parameters(0)?)?;
            (last, Some(file.display().to_string()))
        }
        true => (Point { epsilon: tutor.spent().epsilon, answers: 0, accuracy: 0.0 }, None),
    };
    if points.last().is_none_or(|point: &Point| point.answers < last.answers) {
        points.push(last.clone());
    }
    let spent = tutor.spent();
    Ok(Student {
        name: name.into(),
        mechanism,
        asked: Asked {
            queries: spent.queries,
            answers: spent.answers,
            right: accuracy(&got.labels, &truth),
        },
        epsilon: spent.epsilon,
        epsilon_given_votes: spent.given_votes,
        accuracy: last.accuracy,
        file,
        refusal,
        points,
    })
}

/// Samples of a request.
fn request(width: usize) -> usize {
    (FEATURES / width.max(1)).clamp(1, REQUEST)
}

/// What a student who learned from these labels knows.
fn measured(
    device: &Device,
    at: (&Problem, &Recipe),
    tutor: &impl Tutor,
    got: &Set,
) -> Result<(Point, Models)> {
    let (problem, recipe) = at;
    let mut model = alone(device, recipe, &got.samples(problem.width), None)?;
    let accuracy = tested(&mut model, problem)?;
    let (epsilon, answers) = (tutor.spent().epsilon, got.labels.len());
    Ok((Point { epsilon, answers, accuracy }, model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fit_what_a_server_takes() {
        assert_eq!([0, 64, 3000, 500_000].map(request), [100, 100, 66, 1]);
    }
}
