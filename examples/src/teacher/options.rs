//! What the command takes, and how much the quick and the full run do.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tern_fl::methods::teach::{Limit, Mechanism};

use crate::network::NetworkOptions;
use crate::options::RunOptions;

/// The bundled data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bundled {
    /// Digits
    Mnist,
    /// Census income
    Adult,
}

/// Trains teachers on disjoint parts of private data, lets a student ask them for labels until
/// the privacy budget is spent, and compares it with them and with training that isn't private.
#[derive(Clone, Debug, Parser)]
#[command(name = "teacher-ensemble", version)]
pub struct Options {
    /// Small enough to end well within three minutes on two CPU cores
    #[arg(long)]
    pub quick: bool,
    /// One of the bundled data sets alone; both if not given
    #[arg(long, value_name = "NAME", conflicts_with = "data")]
    pub only: Option<Bundled>,
    /// Data of your own: a table (CSV, its first line names the columns) with `--label`, or a
    /// folder of four IDX files as MNIST's
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Column of `--data` that has the class
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// A teacher for each value of this column of a table (the device that collected the row,
    /// say) instead of parts at random
    #[arg(long, value_name = "COLUMN", conflicts_with = "teachers")]
    pub by: Option<String>,
    /// Teachers; 250 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub teachers: Option<u32>,
    /// Public samples that the student may ask labels for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub queries: Option<u32>,
    /// Privacy budget of each student: ε
    #[arg(long, default_value_t = 8.0)]
    pub epsilon: f64,
    /// Privacy budget of each student: δ
    #[arg(long, default_value_t = 1e-5)]
    pub delta: f64,
    /// Device and report
    #[command(flatten)]
    pub run: RunOptions,
    /// Seed of parts, first weights and noise: with it, answers are an experiment's and private
    /// from nobody who knows it
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
    /// Repeats everything with this many seeds, for mean and standard deviation
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "network", value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: u32,
    /// The first data set and seed, as processes over TLS.
    #[command(flatten)]
    pub network: NetworkOptions,
}

/// How much a run does.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Teachers.
    pub teachers: usize,
    /// Passes of a teacher over its part.
    pub teacher_epochs: u32,
    /// Units of the hidden layer of a teacher.
    pub teacher_hidden: usize,
    /// Optimizer steps of a student.
    pub student_steps: u32,
    /// Optimizer steps of the model that sees the private data.
    pub open_steps: u32,
    /// Units of the hidden layer of a student.
    pub student_hidden: usize,
    /// Samples that a student may ask labels for.
    pub queries: usize,
    /// The budget of a student.
    pub limit: Limit,
}

impl Options {
    /// How much to do.
    pub fn scale(&self) -> Scale {
        let full = Scale {
            teachers: self.teachers.map_or(250, |n| n as usize),
            teacher_epochs: 60,
            teacher_hidden: 32,
            student_steps: 3000,
            open_steps: 12_000,
            student_hidden: 128,
            queries: 2000,
            limit: Limit { epsilon: self.epsilon, delta: self.delta },
        };
        let quick = Scale {
            teacher_epochs: 25,
            student_steps: 1000,
            open_steps: 3000,
            student_hidden: 64,
            ..full.clone()
        };
        let mut scale = if self.quick { quick } else { full };
        scale.queries = self.queries.map_or(scale.queries, |n| n as usize);
        scale
    }
}

/// The mechanisms that are compared, with PATE's noise for 250 teachers: γ = 1/20 (2017),
/// T = 200, σ₁ = 150 and σ₂ = 40 (2018, MNIST), in proportion for fewer or more.
pub fn mechanisms(teachers: usize) -> [(&'static str, Mechanism); 3] {
    // What can be drawn is a multiple of 1/64.
    let part = |of: f64| ((of * teachers as f64 / 250.0 * 64.0).round() / 64.0).max(1.0);
    let threshold = (0.8 * teachers as f64).round() as u32;
    [
        ("Laplace", Mechanism::Laplace { scale: part(20.0) }),
        ("Gaussian", Mechanism::Gaussian { sigma: part(40.0) }),
        ("confident", Mechanism::Confident { threshold, check: part(150.0), sigma: part(40.0) }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_overrides_the_scale() {
        <Options as clap::CommandFactory>::command().debug_assert();
        let parse = |args: &[&str]| Options::try_parse_from([&["teacher-ensemble"], args].concat());
        let scale = parse(&["--quick", "--teachers", "9", "--queries", "7"]).unwrap().scale();
        assert_eq!((scale.teachers, scale.queries), (9, 7));
        assert!(parse(&["--teachers", "1"]).is_err());
        assert!(parse(&["--by", "x", "--teachers", "3"]).is_err());
        for teachers in [2, 37, 250, 1000] {
            for (_, mechanism) in mechanisms(teachers) {
                mechanism.validate().unwrap();
            }
        }
    }
}
