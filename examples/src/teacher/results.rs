//! The numbers of a run, as tables, as JSON and as pictures.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tern_fl::methods::teach::{Limit, Mechanism};

use crate::report::{Report, Series, Table, mean_and_spread};

/// Everything a run found out.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// What ran.
    pub device: String,
    /// `quick` or `full`.
    pub scale: String,
    /// Budget of each student.
    pub limit: Limit,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// By data set.
    pub sets: Vec<SetResult>,
}

/// A data set's.
#[derive(Clone, Debug, Serialize)]
pub struct SetResult {
    /// Its name.
    pub name: String,
    /// δ of the privacy budgets.
    pub delta: f64,
    /// Devices and lines that are left out, and why.
    pub refused: Vec<String>,
    /// By seed.
    pub lessons: Vec<Lesson>,
}

/// One seed's.
#[derive(Clone, Debug, Serialize)]
pub struct Lesson {
    /// The seed.
    pub seed: u32,
    /// Teachers.
    pub teachers: usize,
    /// Parts that no teacher was trained on, and why.
    pub left_out: Vec<String>,
    /// Mean samples of a teacher.
    pub samples: usize,
    /// Mean accuracy of a teacher.
    pub teacher: f64,
    /// Accuracy of the plurality, without noise.
    pub ensemble: f64,
    /// By mechanism.
    pub students: Vec<Student>,
    /// Samples, and accuracy of a student that has their true labels; none without samples.
    pub true_labels: (usize, Option<f64>),
    /// Accuracy of a model trained on all private data.
    pub not_private: f64,
}

/// What a student asked and got.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Samples sent.
    pub queries: u64,
    /// Labels received.
    pub answers: u64,
    /// How many of them are right.
    pub right: f64,
}

/// A student.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Student {
    /// Name of the mechanism.
    pub name: String,
    /// The mechanism.
    pub mechanism: Mechanism,
    /// What it asked and got.
    pub asked: Asked,
    /// ε by the data-independent bound.
    pub epsilon: f64,
    /// ε by the data-dependent bound.
    pub epsilon_given_votes: f64,
    /// Accuracy in the end.
    pub accuracy: f64,
    /// Its model; none without a label.
    pub file: Option<String>,
    /// What the service said when the budget was spent.
    pub refusal: Option<String>,
    /// On the way.
    pub points: Vec<Point>,
}

/// A student on the way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// ε spent.
    pub epsilon: f64,
    /// Labels received.
    pub answers: usize,
    /// Accuracy.
    pub accuracy: f64,
}

/// PATE's figures at δ = 1e-5: what, labels, ε by the data-dependent bound, accuracy. From Table 1
/// of Papernot et al. 2018.
const PAPER: [(&str, [Row; 3]); 2] = [
    (
        "MNIST",
        [
            ("PATE 2017: student, Laplace", "100", "2.04", "98.0"),
            ("PATE 2018: student, confident", "286", "1.97", "98.5"),
            ("PATE: not private", "", "", "99.2"),
        ],
    ),
    (
        "Adult",
        [
            ("PATE 2018: student, Laplace", "500", "2.66", "83.0"),
            ("PATE 2018: student, confident", "524", "1.90", "83.7"),
            ("PATE: not private", "", "", "85.0"),
        ],
    ),
];

type Row = (&'static str, &'static str, &'static str, &'static str);

impl SetResult {
    /// Mean and, over several seeds, standard deviation.
    fn cell(&self, factor: f64, digits: usize, of: impl Fn(&Lesson) -> f64) -> String {
        let values: Vec<f64> = self.lessons.iter().map(|l| factor * of(l)).collect();
        mean_and_spread(&values, digits)
    }

    /// A row for each of who was measured; accuracies in percent.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            &self.name,
            "asked",
            "answered",
            "right",
            &format!("ε at δ = {:e}", self.delta),
            "ε given votes",
            "accuracy",
        ]);
        let percent = |of: &dyn Fn(&Lesson) -> f64| self.cell(100.0, 1, of);
        let Some(first) = self.lessons.first() else { return table };
        let mut plain = |name: String, accuracy: String| {
            let mut cells = vec![name];
            cells.resize(6, String::new());
            cells.push(accuracy);
            table.row(cells);
        };
        let (teachers, samples) = (first.teachers, first.samples);
        plain(format!("{teachers} teachers of {samples} samples, mean"), percent(&|l| l.teacher));
        plain("ensemble, no noise".into(), percent(&|l| l.ensemble));
        for (at, student) in first.students.iter().enumerate() {
            table.row([
                format!("student, {}", student.name),
                self.cell(1.0, 0, |l| l.students[at].asked.queries as f64),
                self.cell(1.0, 0, |l| l.students[at].asked.answers as f64),
                percent(&|l| l.students[at].asked.right),
                self.cell(1.0, 2, |l| l.students[at].epsilon),
                self.cell(1.0, 2, |l| l.students[at].epsilon_given_votes),
                percent(&|l| l.students[at].accuracy),
            ]);
        }
        if self.lessons.iter().all(|l| l.true_labels.1.is_some()) {
            table.row([
                "student, true labels".into(),
                String::new(),
                self.cell(1.0, 0, |l| l.true_labels.0 as f64),
                "100.0".into(),
                "∞".into(),
                "∞".into(),
                percent(&|l| l.true_labels.1.unwrap_or_default()),
            ]);
        }
        let mut row = |name: &str, answers: &str, (e, given): (&str, &str), accuracy: String| {
            let cells = [name, "", answers, "", e, given].map(String::from);
            table.row(cells.into_iter().chain([accuracy]));
        };
        row("not private", "", ("∞", "∞"), percent(&|l| l.not_private));
        let known = PAPER.iter().find(|(name, _)| self.name.starts_with(name));
        for (name, answers, epsilon, accuracy) in known.map_or(&[][..], |(_, rows)| rows) {
            row(name, answers, ("", epsilon), (*accuracy).into());
        }
        table
    }

    /// Accuracy over ε of the first seed's students, between the ensemble's and what isn't
    /// private.
    fn plot(&self, report: &Report, file: &str) -> Result<()> {
        let Some(lesson) = self.lessons.first() else { return Ok(()) };
        let curve = |s: &Student| -> Vec<(f64, f64)> {
            s.points.iter().map(|p| (p.epsilon, 100.0 * p.accuracy)).collect()
        };
        let curves: Vec<_> = lesson.students.iter().map(curve).collect();
        let all = || curves.iter().flatten().map(|point| point.0);
        let ends = [all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max)];
        let level = |accuracy: f64| ends.map(|epsilon| (epsilon, 100.0 * accuracy));
        let levels = [level(lesson.ensemble), level(lesson.not_private), level(lesson.teacher)];
        let names: Vec<_> =
            lesson.students.iter().map(|s| format!("student, {}", s.name)).collect();
        let named = names.iter().zip(&curves);
        let mut series: Vec<_> = named.map(|(name, points)| Series { name, points }).collect();
        let fixed = ["ensemble, no noise", "not private", "teachers, mean"];
        series.extend(fixed.iter().zip(&levels).map(|(name, points)| Series { name, points }));
        let title = format!("{}: what privacy buys", self.name);
        report.plot(file, &title, ("ε spent (data-independent)", "accuracy (%)"), &series)?;
        Ok(())
    }
}

impl Results {
    /// Writes `results.json` and a picture for each data set.
    pub fn write(&self, report: &Report) -> Result<()> {
        report.json("results.json", self)?;
        for (number, set) in self.sets.iter().enumerate() {
            set.plot(report, &format!("epsilon-{}.svg", number + 1))?;
        }
        Ok(())
    }
}
