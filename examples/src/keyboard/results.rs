//! The numbers of a run, as a table, as JSON and as curves.

use std::io::Write;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tern_fl::methods::personalize::{Merge, Round, Score};

use super::measure::Worth;
use super::server::Curve;
use super::study::Row;
use crate::bars::{Pair, bars};
use crate::report::{Report, Series, Table};

/// Everything a run found out.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// What ran.
    pub device: String,
    /// `quick` or `full`.
    pub scale: String,
    /// Seed of everything random.
    pub seed: u32,
    /// Records that a client collects before it trains.
    pub records: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// The public model.
    pub public: PublicResult,
    /// Who can't take part, and why.
    pub refused: Vec<(String, String)>,
    /// By user.
    pub users: Vec<UserResult>,
    /// Over the users, by kind.
    pub medians: Vec<Median>,
    /// Other ways to train on a device.
    pub study: Vec<Row>,
}

/// The public model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublicResult {
    /// File it was published as.
    pub file: String,
    /// Its version.
    pub version: u32,
    /// Parameters.
    pub parameters: usize,
    /// Training steps.
    pub steps: usize,
    /// Seconds of training; 0 for a model from a file.
    pub seconds: f64,
    /// On text that it was not trained on; with one's own data that is the users'.
    pub held_out: Score,
}

/// What personalization did for a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserResult {
    /// The user's name.
    pub name: String,
    /// Characters typed before the measurement.
    pub typed: usize,
    /// Trainings.
    pub rounds: Vec<Round>,
    /// File of the customized model, if one was adopted.
    pub file: Option<String>,
    /// The public model on the held-back lines.
    pub public: Worth,
    /// The model in use at the end on the same lines.
    pub customized: Worth,
    /// Multiplications and additions of all trainings.
    pub training_flops: u64,
    /// What became of a newer public model, where there was one.
    pub merge: Option<MergeResult>,
}

/// A newer public model and a user.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergeResult {
    /// What the device made of it.
    #[serde(flatten)]
    pub outcome: Merge,
    /// Top-1 accuracy of the newer public model on the user's held-back lines.
    pub public: f64,
    /// The same of the model in use in the end.
    pub in_use: f64,
}

impl UserResult {
    fn kind(&self) -> &'static str {
        if self.name.contains('/') { "role" } else { "speaker" }
    }

    /// What a customization took, the mean.
    fn each(&self, all: f64) -> f64 {
        all / self.rounds.len().max(1) as f64
    }

    fn seconds(&self) -> f64 {
        self.each(self.rounds.iter().map(|round| round.work.seconds).sum())
    }

    fn flops(&self) -> f64 {
        self.each(self.training_flops as f64)
    }
}

/// Medians over the users of a kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Median {
    /// `speaker` or `role`.
    pub kind: &'static str,
    /// How many they are.
    pub users: usize,
    /// Public and customized top-1 accuracy, and the gain (the median of the users' gains).
    pub top1: [f64; 3],
    /// The same for top-3.
    pub top3: [f64; 3],
    /// The same for keystrokes saved.
    pub saved: [f64; 3],
    /// Seconds of a customization.
    pub seconds: f64,
    /// Multiplications and additions of a customization.
    pub training_flops: f64,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => 0.0,
        all if all.len() % 2 == 1 => all[all.len() / 2],
        all => (all[all.len() / 2 - 1] + all[all.len() / 2]) / 2.0,
    }
}

/// Medians by kind of user, speakers first.
pub fn medians(users: &[UserResult]) -> Vec<Median> {
    let of = |kind: &'static str| {
        let users: Vec<_> = users.iter().filter(|u| u.kind() == kind).collect();
        let three = |value: fn(&Worth) -> f64| {
            [
                median(users.iter().map(|u| value(&u.public))),
                median(users.iter().map(|u| value(&u.customized))),
                median(users.iter().map(|u| value(&u.customized) - value(&u.public))),
            ]
        };
        (!users.is_empty()).then(|| Median {
            kind,
            users: users.len(),
            top1: three(|w| w.scores.top1_rate()),
            top3: three(|w| w.scores.top3_rate()),
            saved: three(|w| w.saved),
            seconds: median(users.iter().map(|u| u.seconds())),
            training_flops: median(users.iter().map(|u| u.flops())),
        })
    };
    ["speaker", "role"].into_iter().filter_map(of).collect()
}

fn percent(part: f64) -> String {
    format!("{:.1}", 100.0 * part)
}

fn points(gain: f64) -> String {
    format!("{:+.1}", 100.0 * gain)
}

impl Results {
    /// The table that ends a run; numbers in percent, gains in percentage points.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "user",
            "typed",
            "adopted",
            "top-1 public",
            "own",
            "gain",
            "top-3 public",
            "own",
            "gain",
            "saved public",
            "own",
            "gain",
        ]);
        for user in &self.users {
            let adopted = user.rounds.iter().filter(|round| round.adopted).count();
            let (public, own) = (&user.public, &user.customized);
            let pairs = [
                (public.scores.top1_rate(), own.scores.top1_rate()),
                (public.scores.top3_rate(), own.scores.top3_rate()),
                (public.saved, own.saved),
            ];
            let cells = pairs.map(|(a, b)| [percent(a), percent(b), points(b - a)]);
            let head = [
                user.name.clone(),
                user.typed.to_string(),
                format!("{adopted}/{}", user.rounds.len()),
            ];
            table.row(head.into_iter().chain(cells.into_iter().flatten()));
        }
        for m in &self.medians {
            let head = [format!("median {}", m.kind), String::new(), String::new()];
            let cells = [m.top1, m.top3, m.saved]
                .map(|[a, b, gain]| [percent(a), percent(b), points(gain)]);
            table.row(head.into_iter().chain(cells.into_iter().flatten()));
        }
        table
    }

    /// Table and medians, for whoever started the run.
    pub fn tell(&self, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "\n{}", self.table())?;
        for m in &self.medians {
            let ([.., top1], [.., saved], flop) = (m.top1, m.saved, m.training_flops / 1e9);
            writeln!(
                out,
                "Median of {} {}s: {:+.1} points of top-1, {:+.1} points of keystrokes saved; {:.1} s and {flop:.0} GFLOP a customization.",
                m.users,
                m.kind,
                100.0 * top1,
                100.0 * saved,
                m.seconds,
            )?;
        }
        if let Some(merging) = self.merging() {
            writeln!(out, "{merging}")?;
        }
        Ok(())
    }

    /// What a newer public model is to the users, if one was published.
    pub fn merging(&self) -> Option<String> {
        let merged: Vec<_> = self.users.iter().filter_map(|u| Some((u, u.merge?))).collect();
        let version = merged.first()?.1.outcome.version;
        let middle = |value: &dyn Fn(&UserResult, &MergeResult) -> f64| {
            percent(median(merged.iter().map(|(user, merge)| value(user, merge))))
        };
        let customized = || merged.iter().filter(|(user, _)| user.file.is_some());
        Some(format!(
            "Public model v{version}: top-1 {} % for the median user, who had {} % and has {} % in use now. Merged with their own change by {} of {}; taken as it is by the {} without one.",
            middle(&|_, merge| merge.public),
            middle(&|user, _| user.customized.scores.top1_rate()),
            middle(&|_, merge| merge.in_use),
            customized().filter(|(_, merge)| merge.outcome.adopted).count(),
            customized().count(),
            merged.len() - customized().count(),
        ))
    }

    /// Writes `results.json`, and the pictures: `users.svg` of what each user gained, `loss.svg`
    /// of the public training where there was one, `typed.svg` of how well the users' models did
    /// while they typed.
    pub fn write(&self, report: &Report, curve: &Curve) -> Result<()> {
        report.json("results.json", self)?;
        let title = ("Characters expected by the public model and by one's own", "top-1 (%)");
        bars(report, "users.svg", title, ["public model", "own model"], &self.pairs())?;
        if !curve.training.is_empty() {
            let series = [
                Series { name: "training", points: &curve.training },
                Series { name: "held-out text", points: &curve.held_out },
            ];
            let axes = ("step", "nats a character");
            report.plot("loss.svg", "Public model: loss", axes, &series)?;
        }
        let [top1, top3] = self.as_typed();
        if top1.len() > 1 {
            let series =
                [Series { name: "top-3", points: &top3 }, Series { name: "top-1", points: &top1 }];
            let axes = ("characters typed", "expected (%)");
            report.plot("typed.svg", "Median user: characters expected", axes, &series)?;
        }
        Ok(())
    }

    /// Percent expected before and after, of each user and of the medians.
    fn pairs(&self) -> Vec<Pair> {
        let pair = |name: String, rates: [f64; 2]| Pair { name, values: rates.map(|r| 100.0 * r) };
        let rate = |worth: &Worth| worth.scores.top1_rate();
        let users = self
            .users
            .iter()
            .map(|user| pair(user.name.clone(), [&user.public, &user.customized].map(rate)));
        let medians = self.medians.iter().map(|median| {
            let [public, own, _] = median.top1;
            pair(format!("median {}", median.kind), [public, own])
        });
        users.chain(medians).collect()
    }

    /// (characters typed, percent expected) of the median user, by round: a point stands where
    /// its round ended, and the model that expected them is the one of the round before.
    fn as_typed(&self) -> [Vec<(f64, f64)>; 2] {
        let rounds = self.users.iter().map(|u| u.rounds.len()).max().unwrap_or(0);
        let value: [fn(&Round) -> f64; 2] =
            [|r| r.expected.top1_rate(), |r| r.expected.top3_rate()];
        value.map(|value| {
            let mut typed = 0.0;
            (0..rounds)
                .map(|at| {
                    let here = || self.users.iter().filter_map(|u| u.rounds.get(at));
                    typed += median(here().map(|r| r.records as f64));
                    (typed, 100.0 * median(here().map(value)))
                })
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystrokes::Keystrokes;
    use tern_fl::methods::personalize::TrainingCost;

    fn worth(top1: usize, pressed: usize) -> Worth {
        let scores = Score { targets: 100, top1, top3: top1 + 20, loss: 1.5 };
        let keystrokes = Keystrokes { characters: 100, pressed, taken: 1 };
        Worth { scores, keystrokes, saved: keystrokes.saved() }
    }

    fn user(name: &str, top1: [usize; 2], pressed: [usize; 2], rounds: usize) -> UserResult {
        let round = |at: usize| Round {
            records: 1000,
            trained: 875,
            expected: Score { targets: 1000, top1: 400 + 100 * at, top3: 700, loss: 0.0 },
            loss_before: 2.0,
            loss_public: 2.0,
            loss_after: 1.5,
            adopted: at == 0,
            work: TrainingCost { updates: 9, reused: 0, kept_bytes: 0, seconds: 0.5 },
        };
        UserResult {
            name: name.into(),
            typed: 2500,
            rounds: (0..rounds).map(round).collect(),
            file: None,
            public: worth(top1[0], pressed[0]),
            customized: worth(top1[1], pressed[1]),
            training_flops: 1,
            merge: None,
        }
    }

    fn results() -> Results {
        let users = vec![
            user("ann", [40, 55], [80, 60], 2),
            user("bob", [50, 52], [70, 65], 1),
            user("play/EVE", [45, 45], [75, 75], 0),
            user("cy", [44, 56], [90, 60], 2),
        ];
        Results {
            device: "Cpu".into(),
            scale: "quick".into(),
            seed: 1,
            records: 1000,
            seconds: 2.0,
            public: PublicResult {
                file: "public-v1.safetensors".into(),
                version: 1,
                parameters: 10,
                steps: 5,
                seconds: 1.0,
                held_out: worth(54, 1).scores,
            },
            refused: Vec::new(),
            medians: medians(&users),
            users,
            study: Vec::new(),
        }
    }

    #[test]
    fn gains_are_paired_before_the_median_is_taken() {
        let [speaker, role] = results().medians.try_into().unwrap();
        assert_eq!((speaker.kind, speaker.users, role.users), ("speaker", 3, 1));
        let [public, own, gain] = speaker.top1;
        assert!((public - 0.44).abs() < 1e-12 && (own - 0.55).abs() < 1e-12);
        assert!((gain - 0.12).abs() < 1e-12, "of 15, 2 and 12 points");
        assert!((speaker.saved[2] - 0.2).abs() < 1e-12 && speaker.seconds == 0.5);
        assert_eq!(median([1.0, 4.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn the_table_has_a_row_a_user_and_one_a_median() {
        let table = results().table().to_string();
        assert_eq!(table.lines().count(), 2 + 4 + 2);
        let ann = table.lines().nth(2).unwrap().split_whitespace().collect::<Vec<_>>();
        let expected = "ann 2500 1/2 40.0 55.0 +15.0 60.0 75.0 +15.0 20.0 40.0 +20.0";
        assert_eq!(ann.join(" "), expected);
    }

    #[test]
    fn a_newer_public_model_is_told_of() {
        let mut results = results();
        assert_eq!(results.merging(), None);
        // The third one has no model of their own.
        for (number, adopted) in [true, false, true, true].into_iter().enumerate() {
            let user = &mut results.users[number];
            user.file = (number != 2).then(|| "own.safetensors".into());
            let (loss_before, loss_public, loss_merged) = (1.5, 1.8, 1.4);
            let outcome = Merge { version: 2, loss_before, loss_public, loss_merged, adopted };
            user.merge = Some(MergeResult { outcome, public: 0.47, in_use: 0.56 });
        }
        let told = results.merging().unwrap();
        assert!(told.contains("v2: top-1 47.0 %"), "{told}");
        assert!(told.contains("who had 53.5 % and has 56.0 % in use"), "{told}");
        assert!(told.ends_with("by 2 of 3; taken as it is by the 1 without one."), "{told}");
    }

    #[test]
    fn the_report_has_numbers_and_curves() {
        let folder = tempfile::tempdir().unwrap();
        let report = Report::create(folder.path()).unwrap();
        let results = results();
        assert_eq!(results.as_typed()[0], [(1000.0, 40.0), (2000.0, 50.0)]);
        let curve = Curve { training: vec![(1.0, 4.0), (2.0, 3.0)], held_out: vec![(2.0, 3.1)] };
        results.write(&report, &curve).unwrap();
        let json = std::fs::read_to_string(report.path("results.json")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["users"][0]["customized"]["scores"]["top1"], 55);
        assert_eq!(value["users"][0]["rounds"][1]["adopted"], false);
        for file in ["loss.svg", "typed.svg", "users.svg"] {
            assert!(std::fs::read_to_string(report.path(file)).unwrap().contains("<svg"));
        }
        let pairs = results.pairs();
        let names: Vec<_> = pairs.iter().map(|pair| pair.name.as_str()).collect();
        assert_eq!(names, ["ann", "bob", "play/EVE", "cy", "median speaker", "median role"]);
        assert!(pairs[0].values[0] == 40.0 && (pairs[0].values[1] - 55.0).abs() < 1e-9);
    }
}
