//! What a run is of: its plan, its clients and its weather, as a seed draws them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tern_engine::Optimizer;
use tern_fl::layout::{ModelKind, TensorSpec};
use tern_fl::metrics::Metrics;
use tern_fl::plan::{Encoding, Goal, Scores, Secure, Selection, StrategySpec, UpdateKind};
use tern_fl::server::federation::Evaluator;
use tern_fl::{Result, RunPlan, Strategy, StrategyState};

use crate::liar::Lie;
use crate::network::Weather;
use crate::random::Random;
use crate::transfer::Transfer;

pub struct Setup {
    pub plan: RunPlan,
    pub clients: usize,
    /// Who breaks the protocol of secure aggregation, and how.
    pub liars: BTreeMap<usize, Lie>,
    /// Who says that the run is over, whenever it is asked for something.
    pub claims: Option<usize>,
    /// Whether the server evaluates models.
    pub evaluated: bool,
    /// Whether clients enroll by tokens, while strangers try to.
    pub tokens: bool,
    /// Whether requests are signed, and others replay them.
    pub signed: bool,
    /// How many clients the sets of two sums of different models are to differ by, if they do.
    pub difference: u32,
    /// Of a run of transfer.
    pub transfer: Option<Arc<Transfer>>,
    pub weather: Weather,
}

/// Rounds whose updates the server sees.
pub fn clear(random: &mut Random) -> Setup {
    let clients = random.within(2..=5);
    let mut setup = setup(random, clients);
    let updates = &mut setup.plan.updates;
    updates.uplink = random.pick(&[Encoding::Full, Encoding::Half, Encoding::Ternary]);
    setup.claiming()
}

/// Rounds of which the server sees sums, of few clients.
pub fn secure(random: &mut Random) -> Setup {
    let clients = random.within(3..=5);
    let mut setup = setup(random, clients);
    let plan = &mut setup.plan;
    plan.cohort.size = random.within(3..=clients) as u32;
    plan.cohort.minimum = random.within(2..=3) as u32;
    let mut secure = Secure::default();
    (secure.corrupt, secure.dropout) = (0.0, 0.34);
    if random.chance(200) {
        // One, whose vector may be known to the server.
        (secure.corrupt, secure.dropout) = (0.2, 0.2);
        plan.cohort.minimum = 3;
    }
    secure.honest = 2;
    masked(random, plan, secure);
    if random.chance(300) {
        setup.difference = 2;
    }
    // Without the liar there are as many left as a session takes.
    if clients > 3 && random.chance(400) {
        setup.liars = liars(random, clients, 1);
    }
    setup.claiming()
}

/// The same of so many clients that most sessions are of sparse graphs, with corrupt ones.
pub fn sparse(random: &mut Random) -> Setup {
    let clients = random.within(24..=44);
    let mut setup = setup(random, clients);
    let plan = &mut setup.plan;
    let size = clients - random.below(3);
    plan.cohort.size = size as u32;
    plan.cohort.over_selection = 1.0;
    plan.cohort.minimum = random.within(size / 3..=size * 2 / 3) as u32;
    let mut secure = Secure::default();
    (secure.corrupt, secure.dropout) = (random.pick(&[0.05, 0.1]), random.pick(&[0.2, 0.3]));
    // Graphs are the sparser the less they promise.
    (secure.security, secure.failure) = (random.within(6..=12) as u32, 6);
    let corrupt = secure.assumptions().corrupt_of(clients as usize) as u64;
    masked(random, plan, secure);
    if random.chance(600) {
        let number = random.within(1..=corrupt.min(2));
        setup.liars = liars(random, clients, number);
    }
    // An attempt takes all of them, through six steps.
    let Weather { loss, delay, client_ends, server_ends, .. } = &mut setup.weather;
    for rate in [loss, delay, client_ends, server_ends] {
        *rate = rate.div_ceil(6);
    }
    setup
}

fn masked(random: &mut Random, plan: &mut RunPlan, mut secure: Secure) {
    // More of them only where patience may end the run before.
    plan.rounds = plan.rounds.min(2 + u32::from(plan.evaluation.patience.is_some()));
    plan.evaluation.on_clients = false;
    secure.limit = 4.0;
    plan.secure = Some(secure);
    if random.chance(500) {
        plan.updates.uplink = Encoding::Ternary;
        plan.cohort.selection = Selection::BySamples;
    }
}

fn liars(random: &mut Random, clients: u64, number: u64) -> BTreeMap<usize, Lie> {
    let lies = [Lie::Garbage, Lie::Accuses, Lie::Reveals];
    (0..number).map(|_| (random.below(clients) as usize, random.pick(&lies))).collect()
}

fn setup(random: &mut Random, clients: u64) -> Setup {
    let setup = Setup::new(plan(random, clients), clients as usize);
    Setup {
        evaluated: random.chance(500),
        tokens: random.chance(200),
        signed: random.chance(100),
        weather: Weather::draw(random),
        ..setup
    }
}

impl Setup {
    /// Of honest clients, in fair weather.
    pub fn new(plan: RunPlan, clients: usize) -> Self {
        Setup {
            plan,
            clients,
            liars: BTreeMap::new(),
            claims: None,
            evaluated: false,
            tokens: false,
            signed: false,
            difference: 0,
            transfer: None,
            weather: Weather::FAIR,
        }
    }

    /// With one that claims an end, where the others are enough and it is never most of those who
    /// are there. Other draws stay as they are.
    fn claiming(mut self) -> Self {
        let RunPlan { seed, cohort, secure, .. } = &self.plan;
        // A session has three members at least.
        let least = if secure.is_some() { 3 } else { cohort.minimum };
        let enough = cohort.minimum >= 2 && cohort.size > least.max(cohort.minimum);
        if enough && self.liars.is_empty() && seed.is_multiple_of(5) {
            self.claims = Some(*seed as usize / 5 % self.clients);
        }
        self
    }

    /// The strategy that the host program brings.
    pub fn brought(&self) -> Arc<dyn Strategy> {
        let of = |transfer: &Arc<Transfer>| transfer.strategy();
        self.transfer.as_ref().map_or_else(|| Arc::new(Momentum) as Arc<dyn Strategy>, of)
    }
}

fn plan(random: &mut Random, clients: u64) -> RunPlan {
    let tensors = [("a", vec![7, 3]), ("b", vec![5])];
    let tensor = |(name, shape): (&str, Vec<usize>)| TensorSpec { name: name.into(), shape };
    let model = ModelKind::Tensors(tensors.map(tensor).to_vec());
    let mut plan = RunPlan::new("seeds", model, random.within(1..=3) as u32);
    let size = random.within(1..=clients) as u32;
    let cohort = &mut plan.cohort;
    cohort.size = size;
    cohort.over_selection = if random.chance(500) { 1.0 } else { 1.5 };
    cohort.minimum = random.within(1..=u64::from(size)) as u32;
    let uniform = random.chance(500);
    cohort.selection = if uniform { Selection::Uniform } else { Selection::BySamples };
    cohort.gather_ms = random.within(500..=3_000);
    cohort.deadline_ms = random.within(4_000..=15_000);
    cohort.step_ms = random.within(2_000..=6_000);
    plan.seed = random.word() as u32;
    if random.chance(300) {
        plan.updates.downlink = Encoding::Ternary;
    }
    if random.chance(300) {
        plan.updates.kind = UpdateKind::Gradient;
    }
    if random.chance(300) {
        plan.training.keep_optimizer = true;
        let momentum =
            Optimizer::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
        plan.training.optimizer = random.pick(&[momentum, Optimizer::adam()]);
    }
    plan.strategy = strategy(random);
    let evaluation = &mut plan.evaluation;
    evaluation.on_clients = random.chance(300);
    evaluation.scores = random.pick(&[Scores::Server, Scores::Clients]);
    evaluation.goal = random.pick(&[Goal::Minimize, Goal::Maximize]);
    if random.chance(300) {
        evaluation.patience = Some(random.within(1..=2) as u32);
        plan.rounds += 2;
    }
    plan
}

fn strategy(random: &mut Random) -> StrategySpec {
    let (learning_rate, beta1, beta2, tau) = (0.1, 0.9, 0.99, 0.01);
    match random.below(6) {
        0 => StrategySpec::Adam { learning_rate, beta1, beta2, tau },
        1 => StrategySpec::Yogi { learning_rate, beta1, beta2, tau },
        2 => StrategySpec::Custom(Momentum.name().into()),
        _ => StrategySpec::Average { learning_rate: random.pick(&[1.0, 0.5]) },
    }
}

/// A strategy that the host program brings: FedAvgM (Hsu et al. 2019, "Measuring the Effects of
/// Non-Identical Data Distribution for Federated Visual Classification").
pub struct Momentum;

impl Strategy for Momentum {
    fn name(&self) -> &str {
        "momentum"
    }

    fn step(&self, model: &mut [f32], direction: &[f32], state: &mut StrategyState) {
        state.steps += 1;
        state.vectors.resize_with(1, || vec![0.0; model.len()]);
        for ((x, d), v) in model.iter_mut().zip(direction).zip(&mut state.vectors[0]) {
            *v = 0.5 * *v + d;
            *x += 0.5 * *v;
        }
    }
}

/// What all that evaluate a model measure of it.
pub fn loss(model: &[f32]) -> f64 {
    f64::from(model[0].abs())
}

/// The server's evaluation.
pub struct Central;

impl Evaluator for Central {
    fn evaluate(&self, _: u32, model: &[f32]) -> Result<Metrics> {
        Ok(Metrics::from([("loss".into(), loss(model))]))
    }
}
