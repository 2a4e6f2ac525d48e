//! What a run is configured by. A run keeps to its plan from the first round to the last.
//!
//! ```
//! use tern_protocol::RunPlan;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = r#"
//!     name = "weights"
//!     rounds = 50
//!     model = { tensors = [{ name = "w", shape = [3, 2] }] }
//!     cohort = { size = 20, minimum = 15 }
//! "#;
//! let mut plan: RunPlan = toml::from_str(text)?;
//! // What isn't said has its default.
//! assert_eq!(plan.cohort.over_selection, 1.0);
//! assert_eq!(plan.check()?.elements(), 64);
//!
//! plan.cohort.minimum = 21;
//! let error = plan.check().unwrap_err().to_string();
//! assert!(error.contains("cohort.minimum") && error.contains("1 to 20"), "{error}");
//! # Ok(())
//! # }
//! ```

mod check;
mod evaluation;
mod task;
mod training;

pub use evaluation::{Evaluation, Goal, Scores};
use serde::{Deserialize, Serialize};
pub use task::{Task, TaskSpec};
use tern_secagg::{Assumptions, HONEST};
pub use training::{LocalTraining, RateDecay};

use crate::layout::{Layout, ModelKind};
use crate::masking::Masking;
use crate::schema::Schema;
use crate::tokens::Tokens;
use crate::{Error, Result, RunId};

/// Most bits after the binary point of a round's sums; more than any mean in `f32` needs.
pub const MAX_FRACTION_BITS: u32 = 40;

/// All that a run is configured by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RunPlan {
    /// Name of the run, for people.
    pub name: String,
    /// What is trained.
    pub model: ModelKind,
    /// Rounds.
    pub rounds: u32,
    /// Seed of the first model and of clients' training; in simulations of selection, too.
    #[serde(default)]
    pub seed: u32,
    /// Who takes part in a round, and for how long.
    #[serde(default)]
    pub cohort: Cohort,
    /// What clients do in a round.
    #[serde(default)]
    pub training: LocalTraining,
    /// How updates and models travel.
    #[serde(default)]
    pub updates: Updates,
    /// Secure aggregation, if the server is to see nothing but sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<Secure>,
    /// What the columns of clients' tables mean; without it features are numbers as they are, and
    /// classes whole numbers from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// How clients' text becomes tokens; without it each says it on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// What the server does with the mean update.
    #[serde(default)]
    pub strategy: StrategySpec,
    /// What makes a model the best, and when to stop.
    #[serde(default)]
    pub evaluation: Evaluation,
}

/// How the clients of a round are drawn from those online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Each with the same chance.
    #[default]
    Uniform,
    /// With chances in proportion to their samples.
    BySamples,
}

/// Who takes part in a round, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Cohort {
    /// Updates that close a round.
    pub size: u32,
    /// Clients that are asked, as a multiple of `size`, so that stragglers don't matter. In a
    /// secure run: asked for keys; the first `size` make up the session.
    pub over_selection: f64,
    /// Updates without which a round is repeated.
    pub minimum: u32,
    /// How clients are drawn.
    pub selection: Selection,
    /// Milliseconds to wait, before a draw, for all clients that are registered, so that those who
    /// ask first have no advantage; then at least `minimum` have to be online. Nobody is waited for
    /// who didn't come in that time before. The first attempt of a run waits for `size ×
    /// over_selection` at least, as clients still register; where they enroll by tokens, as long
    /// as this.
    pub gather_ms: u64,
    /// Milliseconds for training and upload.
    pub deadline_ms: u64,
    /// Milliseconds for each of the other phases: keys, shares, their check, confirmation,
    /// unmasking, evaluation.
    pub step_ms: u64,
}

impl Default for Cohort {
    fn default() -> Self {
        Cohort {
            size: 10,
            over_selection: 1.0,
            minimum: 1,
            selection: Selection::Uniform,
            gather_ms: 10_000,
            deadline_ms: 600_000,
            step_ms: 60_000,
        }
    }
}

impl Cohort {
    /// Clients that are asked in a round.
    pub fn asked(&self) -> u32 {
        (f64::from(self.size) * self.over_selection).ceil() as u32
    }
}

/// What an update is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateKind {
    /// Parameters after local training less those before.
    #[default]
    Delta,
    /// The gradient at the parameters that local training reached.
    Gradient,
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// 32-bit floats.
    #[default]
    Full,
    /// 16-bit floats.
    Half,
    /// 2-bit codes and a scale a tensor; what they leave is kept and added to the next.
    Ternary,
}

/// How ternary codes are made where the client chooses the scales.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TernaryMethod {
    /// Drawn, from scales of the largest magnitude, but at most this many standard deviations
    /// (TernGrad: 2.5).
    Drawn(f32),
    /// Above a threshold of this fraction of the mean magnitude (T-FedAvg: 0.7).
    Thresholded(f32),
}

/// How updates and models travel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Updates {
    /// What an update is.
    pub kind: UpdateKind,
    /// Encoding of updates.
    pub uplink: Encoding,
    /// Encoding of models: full, or ternary differences from model to model.
    pub downlink: Encoding,
    /// How ternary codes are made.
    pub ternary: TernaryMethod,
    /// Largest magnitude of an element of an update. Clients clip larger ones to it; who sends one
    /// all the same is refused.
    pub bound: f32,
    /// Most samples a client may count for.
    pub max_samples: u32,
    /// Most samples a client may count for, as a multiple of the median of its cohort: clients say
    /// themselves how many they have.
    pub max_over_median: f64,
    /// Largest Euclidean norm of an update that is not masked: the server scales a larger one
    /// down to it. `training.clip_update` has honest clients do so before, under masks, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
}

impl Updates {
    /// The largest `max_over_median`, which no claim reaches: clients count by their samples alone.
    pub const ANY_OVER_MEDIAN: f64 = 1e9;

    /// Most samples that a client of a cohort may count for, of which these are the members'.
    pub fn most_samples(&self, cohort: impl Iterator<Item = u32>) -> u32 {
        let mut samples: Vec<u32> = cohort.collect();
        samples.sort_unstable();
        // The lower one of two: in a cohort of two, one of them may lie.
        let Some(median) = samples.get(samples.len().saturating_sub(1) / 2) else {
            return self.max_samples;
        };
        let most = f64::from(*median) * self.max_over_median;
        // A float beyond the largest integer becomes it.
        self.max_samples.min((most as u32).max(1))
    }

    /// Clips elements to the bound, as a client does before it sends them.
    pub fn clip(&self, update: &mut [f32]) {
        let bound = self.bound;
        let beyond = update.iter().filter(|x| x.abs() > bound).count();
        if beyond > 0 {
            tracing::warn!(beyond, bound, "elements of the update are clipped to the bound");
        }
        update.iter_mut().for_each(|x| *x = x.clamp(-bound, bound));
    }
}

impl Default for Updates {
    fn default() -> Self {
        Updates {
            kind: UpdateKind::Delta,
            uplink: Encoding::Full,
            downlink: Encoding::Full,
            ternary: TernaryMethod::Thresholded(0.7),
            bound: 16.0,
            max_samples: 1 << 20,
            max_over_median: 16.0,
            max_norm: None,
        }
    }
}

/// Secure aggregation: with full uplink in fixed point, with ternary uplink in lanes.
/// What a server is told of a client is its samples, which all members of a session are, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Secure {
    /// Largest share of clients that work with a curious server.
    pub corrupt: f64,
    /// Largest share of clients that drop out in mid-round.
    pub dropout: f64,
    /// A client's vector is revealed with probability below 2^-this.
    pub security: u32,
    /// A round fails with probability below 2^-this.
    pub failure: u32,
    /// Fewest clients in a sum beside those that may work with the server.
    pub honest: u32,
    /// Full uplink: larger magnitudes are clipped to this.
    pub limit: f32,
    /// Ternary uplink: scale of every tensor in the first round.
    pub first_scale: f32,
    /// What training measures that is summed up under the masks: the server is told the means alone,
    /// and of other metrics nothing.
    pub metrics: Vec<String>,
}

impl Secure {
    /// What a session withstands.
    pub fn assumptions(&self) -> Assumptions {
        Assumptions {
            corrupt: self.corrupt,
            dropout: self.dropout,
            security_bits: self.security,
            failure_bits: self.failure,
            honest: self.honest,
        }
    }
}

impl Default for Secure {
    fn default() -> Self {
        Secure {
            corrupt: 0.2,
            dropout: 0.2,
            security: 40,
            failure: 20,
            honest: HONEST,
            limit: 1.0,
            first_scale: 0.01,
            metrics: vec!["loss".into()],
        }
    }
}

/// What the server does with the mean update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StrategySpec {
    /// Adds it (FedAvg).
    Average {
        /// Factor: 1 for deltas, the learning rate for gradients.
        learning_rate: f64,
    },
    /// Adam on it (FedAdam).
    Adam {
        /// Learning rate.
        learning_rate: f64,
        /// Decay of the mean.
        beta1: f64,
        /// Decay of the squares.
        beta2: f64,
        /// Added to the root of the squares.
        tau: f64,
    },
    /// Yogi on it (FedYogi).
    Yogi {
        /// Learning rate.
        learning_rate: f64,
        /// Decay of the mean.
        beta1: f64,
        /// Decay of the squares.
        beta2: f64,
        /// Added to the root of the squares.
        tau: f64,
    },
    /// One that the host program brings, by its name.
    Custom(String),
}

impl Default for StrategySpec {
    fn default() -> Self {
        StrategySpec::Average { learning_rate: 1.0 }
    }
}

impl RunPlan {
    /// A plan with defaults for all but the model and the number of rounds.
    pub fn new(name: &str, model: ModelKind, rounds: u32) -> Self {
        RunPlan {
            name: name.into(),
            model,
            rounds,
            seed: 0,
            cohort: Cohort::default(),
            training: LocalTraining::default(),
            updates: Updates::default(),
            secure: None,
            schema: None,
            tokens: None,
            strategy: StrategySpec::default(),
            evaluation: Evaluation::default(),
        }
    }

    /// Bits after the binary point of the sums of a round: as many as the largest possible
    /// sum leaves, at most [`MAX_FRACTION_BITS`].
    pub fn fraction_bits(&self) -> u32 {
        let weight = f64::from(self.cohort.asked()) * f64::from(self.updates.max_samples);
        let largest = weight * f64::from(self.updates.bound);
        (62.0 - largest.log2().ceil()).clamp(0.0, f64::from(MAX_FRACTION_BITS)) as u32
    }

    /// Whether a run is over after a round, with so many rounds since the best one.
    pub fn ends_after(&self, round: u32, stale: u32) -> bool {
        let patience = self.evaluation.patience;
        round >= self.rounds || patience.is_some_and(|patience| stale >= patience)
    }

    /// How vectors of its model's layout are masked, if they are.
    ///
    /// # Errors
    /// [`crate::Error::Value`] if their sum fits no word.
    pub fn masking(&self, layout: &Layout) -> Result<Option<Masking>> {
        let new = |secure| Masking::new(secure, self.updates.uplink, self.cohort.size, layout);
        self.secure.as_ref().map(new).transpose()
    }

    /// What clients need of it, in a run.
    ///
    /// # Errors
    /// As [`RunPlan::check`].
    pub fn task(&self, run: RunId) -> Result<TaskSpec> {
        Ok(TaskSpec {
            run,
            name: self.name.clone(),
            layout: self.check()?.digest(),
            model: self.model.clone(),
            seed: self.seed,
            training: self.training.clone(),
            updates: self.updates.clone(),
            secure: self.secure.clone(),
            cohort: self.cohort.size,
            metrics: self.evaluation.metrics.clone(),
            schema: self.schema.clone(),
            tokens: self.tokens.clone(),
        })
    }

    /// Whether a run that was started with `started` goes on by this plan: only the number of
    /// rounds may be another one, and more.
    ///
    /// # Errors
    /// [`Error::Value`], naming the first field that differs, with both values.
    pub fn check_goes_on_from(&self, started: &RunPlan) -> Result<()> {
        let rounds = self.rounds.max(started.rounds);
        match (RunPlan { rounds, ..started.clone() }).difference(self) {
            None => Ok(()),
            Some(difference) => {
                let expected = "the plan that the run was started with, or more rounds";
                Err(Error::value("plan", difference, expected))
            }
        }
    }

    /// The first field in which two plans differ, with both values.
    pub fn difference(&self, other: &RunPlan) -> Option<String> {
        let json = |plan: &RunPlan| serde_json::to_value(plan).unwrap_or_default();
        differs("", &json(self), &json(other))
    }
}

/// The path of the first value that differs, with both values.
fn differs(path: &str, a: &serde_json::Value, b: &serde_json::Value) -> Option<String> {
    if let (Some(a), Some(b)) = (a.as_object(), b.as_object()) {
        let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
        let null = serde_json::Value::Null;
        return keys.into_iter().find_map(|key| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            differs(&path, a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null))
        });
    }
    (a != b).then(|| format!("{path}: {a} and {b}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_engine::nn::ModelSpec;

    fn plan() -> RunPlan {
        RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(3, &[], 2)), 5)
    }

    #[test]
    fn plans_survive_toml_and_name_what_differs() {
        let mut plan = plan();
        plan.secure = Some(Secure::default());
        plan.strategy =
            StrategySpec::Yogi { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<RunPlan>(&text).unwrap(), plan);
        let mut other = plan.clone();
        assert_eq!(plan.difference(&other), None);
        other.cohort.size = 11;
        assert_eq!(plan.difference(&other).unwrap(), "cohort.size: 10 and 11");
        let error = toml::from_str::<RunPlan>(&format!("{text}\nspeed = 3")).unwrap_err();
        assert!(error.to_string().contains("speed"), "{error}");
    }

    #[test]
    fn a_run_goes_on_by_its_plan_and_more_rounds() {
        let started = plan();
        let goes_on = |change: fn(&mut RunPlan)| {
            let mut plan = started.clone();
            change(&mut plan);
            plan.check_goes_on_from(&started).map_err(|error| error.to_string())
        };
        assert_eq!(goes_on(|_| ()), Ok(()));
        assert_eq!(goes_on(|plan| plan.rounds = 6), Ok(()));
        let refused = goes_on(|plan| plan.rounds = 4).unwrap_err();
        assert!(refused.contains("rounds: 5 and 4"), "{refused}");
        let refused = goes_on(|plan| plan.secure = Some(Secure::default())).unwrap_err();
        assert!(refused.contains("secure"), "{refused}");
    }

    #[test]
    fn a_round_asks_for_more_than_it_needs() {
        for (size, over_selection, asked) in
            [(10, 1.0, 10), (10, 1.5, 15), (3, 1.5, 5), (7, 2.0, 14)]
        {
            let cohort = Cohort { size, over_selection, ..Cohort::default() };
            assert_eq!(cohort.asked(), asked, "{size} {over_selection}");
        }
    }

    #[test]
    fn sums_stay_below_their_limit() {
        for (size, samples, bound) in [(1, 1, 1.0), (100, 1 << 20, 16.0), (250_000, u32::MAX, 1e9)]
        {
            let mut plan = plan();
            plan.cohort.size = size;
            (plan.updates.max_samples, plan.updates.bound) = (samples, bound);
            let sum = f64::from(size) * f64::from(samples) * f64::from(bound);
            let fits = sum * f64::powi(2.0, plan.fraction_bits() as i32) <= f64::powi(2.0, 62);
            assert_eq!(fits, plan.check().is_ok(), "{size} {samples} {bound}");
        }
    }
}
