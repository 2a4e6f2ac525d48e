//! The ways to train that are compared: all with the same model, data and rounds.

use serde::Serialize;
use tern_fl::RunPlan;
use tern_fl::layout::ModelKind;
use tern_fl::plan::{
    Encoding, Secure, Selection, StrategySpec, TernaryMethod, UpdateKind, Updates,
};

use super::options::Scale;

/// Learning rate of local gradient descent.
const RATE: f64 = 0.3;

/// Learning rates where gradients are sent: of the terminals, and of the center.
const GRADIENT_RATES: [f64; 2] = [0.03, 0.5];

/// A way to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Arm {
    /// Its row in the table.
    pub name: &'static str,
    /// 3.2: what a terminal sends.
    pub kind: UpdateKind,
    /// 3.3: how it is written.
    pub uplink: Encoding,
    /// 3.5: how models come back.
    pub downlink: Encoding,
    /// Whether the center learns sums alone.
    pub secure: bool,
}

/// All of them, the reference first.
pub const ARMS: [Arm; 6] = [
    Arm {
        name: "full precision",
        kind: UpdateKind::Delta,
        uplink: Encoding::Full,
        downlink: Encoding::Full,
        secure: false,
    },
    Arm {
        name: "ternary delta",
        kind: UpdateKind::Delta,
        uplink: Encoding::Ternary,
        downlink: Encoding::Full,
        secure: false,
    },
    Arm {
        name: "ternary delta, both ways",
        kind: UpdateKind::Delta,
        uplink: Encoding::Ternary,
        downlink: Encoding::Ternary,
        secure: false,
    },
    Arm {
        name: "ternary delta + secure",
        kind: UpdateKind::Delta,
        uplink: Encoding::Ternary,
        downlink: Encoding::Full,
        secure: true,
    },
    Arm {
        name: "gradient, full precision",
        kind: UpdateKind::Gradient,
        uplink: Encoding::Full,
        downlink: Encoding::Full,
        secure: false,
    },
    Arm {
        name: "gradient, ternary",
        kind: UpdateKind::Gradient,
        uplink: Encoding::Ternary,
        downlink: Encoding::Full,
        secure: false,
    },
];

impl Arm {
    /// The plan of a run.
    pub fn plan(&self, model: &ModelKind, scale: &Scale, seed: u32) -> RunPlan {
        let mut plan = RunPlan::new("recommender", model.clone(), scale.rounds);
        plan.seed = seed;
        // 3.4: a random subset of the terminals.
        plan.cohort.size = scale.cohort;
        plan.cohort.minimum = (2 * scale.cohort).div_ceil(3);
        plan.training.steps = Some(scale.steps);
        plan.training.batch = scale.batch;
        plan.training.learning_rate = RATE;
        // As in the paper, terminals count by their samples alone.
        plan.updates.max_over_median = Updates::ANY_OVER_MEDIAN;
        plan.updates.kind = self.kind;
        plan.updates.uplink = self.uplink;
        plan.updates.downlink = self.downlink;
        if self.kind == UpdateKind::Gradient {
            // Where a terminal has learned its own customers by heart, its gradient is of no use
            // to the others: so it goes less far, and the center goes further by what comes.
            plan.training.learning_rate = GRADIENT_RATES[0];
            plan.strategy = StrategySpec::Average { learning_rate: GRADIENT_RATES[1] };
            plan.updates.ternary = TernaryMethod::Drawn(2.5);
        }
        if self.secure {
            // Ternary sums are unweighted, so terminals are drawn by their samples instead.
            plan.cohort.selection = Selection::BySamples;
            plan.secure = Some(Secure::default());
            // Three, and one that may work with the server.
            plan.cohort.minimum = plan.cohort.minimum.max(4);
        }
        plan
    }
}
