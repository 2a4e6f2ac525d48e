//! Workloads that exist for their ratio to a peer: training steps of an LSTM layer, and products
//! of the shapes that training has. Both sides are timed turn by turn.

use std::time::{Duration, Instant};

use anyhow::Result;
use tern_engine::nn::{Lstm, LstmConfig, Mode};
use tern_engine::{Arena, Data, Device, Element, Graph, Parameters, Plan, Trainable};
use tern_shaders::kernels::matmul::{NN, NT, TN};

use crate::budget::Budget;
use crate::measure::{pace_seconds, times};
use crate::peers::Torch;
use crate::progress::Progress;
use crate::report::{Pair, Roofline};
use crate::rows;

/// Turns that each side has; at least, where they take long.
const TURNS: u32 = 4;
const MIN_TURNS: u32 = 2;

/// Batches and hidden units of the LSTM layer.
const BATCHES: [usize; 3] = [1, 10, 64];
const HIDDEN: [usize; 4] = [64, 192, 256, 512];
/// Its time steps.
const STEPS: usize = 64;

/// A layer that is timed: batch, hidden units, whether it has two directions, projections.
struct Layer {
    batch: usize,
    hidden: usize,
    bidirectional: bool,
    projection: Option<usize>,
}

impl Layer {
    /// The grid of plain layers, then those of two directions and projected ones.
    fn all() -> Vec<Layer> {
        let plain = |batch, hidden| Layer { batch, hidden, bidirectional: false, projection: None };
        let mut all: Vec<Layer> =
            BATCHES.iter().flat_map(|b| HIDDEN.map(|hidden| plain(*b, hidden))).collect();
        all.push(Layer { bidirectional: true, ..plain(10, 256) });
        all.extend(
            [(256, 64), (512, 128), (512, 256)]
                .map(|(hidden, outputs)| Layer { projection: Some(outputs), ..plain(10, hidden) }),
        );
        all
    }

    fn sizes(&self) -> String {
        let plain = format!("{} × {} × {STEPS}", self.batch, self.hidden);
        match (self.bidirectional, self.projection) {
            (true, _) => format!("{plain}, both directions"),
            (_, Some(outputs)) => format!("{plain}, projected to {outputs}"),
            _ => plain,
        }
    }

    /// Operations of a step of the layer as it is defined: two maps of gates forward, and a projection;
    /// of each one the weights' gradient; and the gradient of the hidden state, but not of the input.
    fn flops(&self) -> u64 {
        let state = self.projection.unwrap_or(self.hidden);
        let gates = 4 * self.hidden * (2 * self.hidden + 3 * state);
        let projection = self.projection.map_or(0, |outputs| 3 * outputs * self.hidden);
        let directions = if self.bidirectional { 2 } else { 1 };
        (directions * 2 * STEPS * self.batch * (gates + projection)) as u64
    }

    /// A plan that computes the layer's output and its parameters' gradients.
    fn plan(&self, device: &Device) -> Result<Plan> {
        let mut parameters = Parameters::new();
        let config = LstmConfig::new(self.hidden, self.hidden)
            .bidirectional(self.bidirectional)
            .projection(self.projection);
        let lstm = Lstm::new(&mut parameters, "lstm", config)?;
        let arena = Arena::new(device, &parameters, &[1])?;
        let mut graph = Graph::new(&arena);
        let shape = [STEPS, self.batch, self.hidden];
        let x = graph.input("x", &shape, Element::F32);
        let (y, _) = lstm.forward(&mut graph, x, Mode::Train)?;
        let ones = graph.constant(1.0, &[STEPS, self.batch, lstm.outputs()]);
        let (mut plan, _) = graph.gradients(&[(y, ones)], &Trainable::All, &[])?;
        let Data::F32(noise) = rows::floats(shape.iter().product(), 1).data() else {
            unreachable!("floats are floats")
        };
        plan.write(x, &Data::F32(noise.iter().map(|x| 0.5 * x).collect()))?;
        Ok(plan)
    }
}

/// M, N and K of the square products.
const SQUARES: [u32; 5] = [128, 256, 512, 1024, 2048];

/// A linear map over rows in one of the models: rows, outputs and inputs of its products.
/// Forward is NT, the weights' gradient TN, and the input's gradient NN.
struct Map {
    rows: u32,
    outputs: u32,
    inputs: u32,
}

/// Those of the models in [`crate::models`], and the recurrence's weights, whose gradient alone
/// is one product over all steps.
const MAPS: [Map; 10] = [
    // char-lstm: 80 steps of a batch of 10; two layers, the output.
    Map { rows: 800, outputs: 1024, inputs: 8 },
    Map { rows: 800, outputs: 1024, inputs: 256 },
    Map { rows: 800, outputs: 90, inputs: 256 },
    // word-lm: 20 steps of a batch of 16; the layer, its recurrence, the output.
    Map { rows: 320, outputs: 1024, inputs: 128 },
    Map { rows: 320, outputs: 1024, inputs: 256 },
    Map { rows: 320, outputs: 10_000, inputs: 256 },
    // mlp
    Map { rows: 64, outputs: 256, inputs: 784 },
    Map { rows: 64, outputs: 128, inputs: 256 },
    Map { rows: 64, outputs: 10, inputs: 128 },
    // cnn: the output.
    Map { rows: 32, outputs: 10, inputs: 1568 },
];

/// What both groups need.
pub struct Bench<'a> {
    /// The device.
    pub device: &'a Device,
    /// How long things may take.
    pub budget: Budget,
    /// The device's roofline, if it was measured.
    pub roofline: Option<&'a Roofline>,
    /// The peer, if it was asked for.
    pub torch: Option<&'a mut Torch>,
    /// Shows what is going on.
    pub progress: &'a Progress,
}

impl Bench<'_> {
    /// Times both sides in turns. `ours` runs for about the time that it gets.
    fn pair(
        &mut self,
        (group, what, sizes): (&str, &str, String),
        (flops, bytes): (u64, u64),
        mut ours: impl FnMut(Duration) -> Result<Vec<f64>>,
    ) -> Result<Pair> {
        let turn = self.budget.pair() / TURNS;
        let (mut own, mut peer) = (Vec::new(), Vec::new());
        let begin = Instant::now();
        for number in 0..TURNS {
            // Large sizes take longer than their time in one run.
            if number >= MIN_TURNS && begin.elapsed() > 4 * self.budget.pair() {
                break;
            }
            own.extend(ours(turn)?);
            if let Some(torch) = &mut self.torch {
                peer.extend(torch.seconds(self.device, what, &sizes, turn)?.unwrap_or_default());
            }
        }
        let ours = times(own);
        let least = self.roofline.and_then(|roofline| roofline.least(flops, bytes, false));
        Ok(Pair {
            group: group.into(),
            what: what.into(),
            sizes,
            rate: flops as f64 / ours.median * 1e-9,
            share: least.map(|least| least / ours.median),
            ours,
            theirs: (!peer.is_empty()).then(|| times(peer)),
        })
    }

    /// Training steps of an LSTM layer: forward, and backward from a gradient of ones; no
    /// optimizer. Inputs are as wide as the hidden state.
    ///
    /// # Errors
    /// Device errors; if the peer fails.
    pub fn lstm(&mut self) -> Result<Vec<Pair>> {
        let (mut pairs, all) = (Vec::new(), Layer::all());
        for (done, layer) in all.iter().enumerate() {
            self.progress.step(done, all.len(), &format!("lstm {}", layer.sizes()));
            let mut plan = layer.plan(self.device)?;
            pairs.push(self.pair(("lstm", "lstm", layer.sizes()), (layer.flops(), 0), |turn| {
                let steps = async |n| Ok(plan.run(n).map(|_| ())?);
                pollster::block_on(pace_seconds(1, 2, turn, steps))
            })?);
        }
        Ok(pairs)
    }

    /// Products: squares, and those of the models' training steps.
    ///
    /// # Errors
    /// Device errors; if the peer fails.
    pub fn products(&mut self) -> Result<Vec<Pair>> {
        let squares = SQUARES.map(|n| (&NN, [n; 3]));
        let maps = MAPS.iter().flat_map(|&Map { rows, outputs, inputs }| {
            [
                (&NT, [rows, outputs, inputs]),
                (&TN, [outputs, inputs, rows]),
                (&NN, [rows, inputs, outputs]),
            ]
        });
        let all: Vec<_> = squares.into_iter().chain(maps).collect();
        let mut pairs = Vec::new();
        for (done, (kernel, sizes)) in all.iter().enumerate() {
            let case = rows::product(kernel, *sizes).case();
            self.progress.step(done, all.len(), &format!("{} {}", kernel.name, case.label));
            let device = self.device;
            let what = ("products", kernel.name, case.label.clone());
            pairs.push(self.pair(what, (case.flops, case.bytes), |turn| {
                Ok(case.time(device, turn)?.alone_each)
            })?);
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The median of its own times and no peer; a peer's are in `peers::torch`.
    #[test]
    fn without_a_peer_a_pair_has_our_side_alone() {
        let (device, progress) = (Device::cpu(), Progress::new());
        let budget = Budget { quick: true };
        let mut bench =
            Bench { device: &device, budget, roofline: None, torch: None, progress: &progress };
        let mut turns = 0;
        let pair = bench.pair(("g", "w", "1 × 2".into()), (4_000_000_000, 0), |turn| {
            assert!(turn > Duration::ZERO);
            turns += 1;
            Ok(vec![2.0; 3])
        });
        let pair = pair.unwrap();
        assert_eq!((turns, pair.ours.runs, pair.ours.median), (TURNS, 12, 2.0));
        assert_eq!((pair.rate, pair.ratio()), (2.0, None));
    }

    #[test]
    fn a_layer_has_a_gradient() {
        let device = Device::cpu();
        for (bidirectional, projection) in [(false, None), (true, None), (false, Some(4))] {
            let layer = Layer { batch: 2, hidden: 8, bidirectional, projection };
            let mut plan = layer.plan(&device).unwrap();
            plan.run(1).unwrap();
            let gradients = plan.arena().read(tern_engine::Flat::Gradients, 0).unwrap();
            assert!(gradients.iter().any(|g| *g != 0.0), "{}", layer.sizes());
            assert!(gradients.iter().all(|g| g.is_finite()), "{}", layer.sizes());
        }
    }
}
