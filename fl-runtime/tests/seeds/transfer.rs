//! Runs of adversarial transfer: its strategy on the server, its nodes as clients. Whatever happens
//! on the way, the model is that of the same nodes driven by the target.

use std::sync::Arc;

use tern_engine::Device;
use tern_engine::nn::ModelSpec;
use tern_fl::methods::align::{Fusion, Model, Node, Objective, Settings, plan, run};
use tern_fl::plan::Scores;
use tern_fl::{ClientId, RunPlan, Strategy};

use crate::network::Weather;
use crate::random::Random;
use crate::setup::Setup;

/// Two sources and the target.
pub const NODES: usize = 3;
const POINTS: usize = 24;

/// What nodes and server agree on.
#[derive(Debug)]
pub struct Transfer {
    model: Model,
    settings: Settings,
}

/// Rounds of transfer.
pub fn transfer(random: &mut Random) -> Setup {
    let mlp = ModelSpec::mlp;
    let model = Model::new(mlp(2, &[6], 4), mlp(4, &[], 2), mlp(4, &[4], 1)).unwrap();
    let settings = Settings {
        batch: 8,
        warm_ups: 1,
        warm_up_steps: 5,
        head_start: random.below(2) as u32,
        exchanges: 1,
        objective: random.pick(&[Objective::Invert, Objective::Reverse]),
        strength: 1.0,
        seed: random.word() as u32,
        ..Settings::default()
    };
    let mut plan = plan("seeds", &model, &settings, NODES as u32);
    // A round without one of them would be another one.
    plan.cohort.minimum = NODES as u32;
    plan.cohort.over_selection = 1.0;
    plan.cohort.deadline_ms = random.within(4_000..=15_000);
    plan.evaluation.scores = Scores::Server;
    let transfer = Some(Arc::new(Transfer { model, settings }));
    let signed = random.chance(100);
    let weather = Weather::draw(random);
    Setup { transfer, signed, weather, ..Setup::new(plan, NODES) }
}

impl Transfer {
    pub fn strategy(&self) -> Arc<dyn Strategy> {
        Arc::new(Fusion::new(&self.model, &self.settings))
    }

    pub fn initial(&self) -> Vec<f32> {
        self.model.initial(self.settings.seed)
    }

    /// The last node is the target.
    pub fn node(&self, index: usize) -> Node {
        let noise = |i: usize| ((i * 7_919 + index * 104_729) % 1_009) as f32 / 1_009.0 - 0.5;
        let labels: Vec<u32> = (0..POINTS).map(|i| (i % 2) as u32).collect();
        let is_target = index + 1 == NODES;
        let aside = if is_target { 1.5 } else { 0.0 };
        let point = |i: usize| {
            let side = if i.is_multiple_of(2) { -0.6 } else { 0.6 };
            [side + noise(2 * i), noise(2 * i + 1) + aside]
        };
        let points: Vec<f32> = (0..POINTS).flat_map(point).collect();
        let (device, model, settings) = (Device::cpu(), &self.model, &self.settings);
        match is_target {
            true => {
                Node::target(&device, model, settings, &points, None).unwrap().with_weight(2_000)
            }
            false => Node::source(&device, model, settings, &points, &labels).unwrap(),
        }
    }

    /// The last model without a server, a network or storage.
    pub fn undisturbed(&self, plan: &RunPlan, clients: &[ClientId]) -> Vec<f32> {
        let mut nodes: Vec<(ClientId, Node)> =
            clients.iter().enumerate().map(|(index, client)| (*client, self.node(index))).collect();
        // In order of their keys, as on a server.
        nodes.sort_by_key(|(client, _)| *client);
        let fusion = Fusion::new(&self.model, &self.settings);
        run(plan, &fusion, &self.initial(), &mut nodes, |_, _| ()).unwrap().model
    }
}
