//! What must be true of a run, worked out apart from it.

mod scores;
mod sums;

use std::collections::BTreeMap;
use std::sync::Arc;

use tern_engine::Device;
use tern_fl::participant::{KnownSum, Pending, SavedState};
use tern_fl::plan::{Encoding, UpdateKind};
use tern_fl::server::federation::Federation;
use tern_fl::server::journal::CountedUpload;
use tern_fl::trainer::{OptimizerState, Trained};
use tern_fl::update::{Codec, Scales, add_difference};
use tern_fl::{ClientId, Digest, Layout, RunPlan, StrategyState, Turn, wire};

use crate::setup::Setup;
use scores::Scored;
pub use scores::Verdict;

/// An update as its client made it.
struct Made {
    digest: Digest,
    body: Vec<u8>,
    samples: u32,
    /// What goes on from it, if it is counted.
    kept: Kept,
}

/// What goes on from one counted update of a client to the next: what its codes left, and the
/// optimizer.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kept {
    residual: Vec<f32>,
    optimizer: Arc<OptimizerState>,
}

/// What a client put into an update, before it was encoded.
pub struct Plain {
    update: Vec<f32>,
    samples: u32,
    /// What it went on from.
    kept: Kept,
    scales: Vec<f32>,
    loss: f64,
    /// The most samples of a member of its session.
    most: u32,
}

impl Plain {
    pub fn new(trained: &Trained, kept: &SavedState, asked: &wire::Train, most: u32) -> Self {
        let (residual, optimizer) = (kept.residual.clone(), kept.optimizer.clone());
        Plain {
            update: trained.update.clone(),
            samples: trained.samples,
            kept: Kept { residual, optimizer },
            scales: asked.scales.clone(),
            loss: trained.metrics.get("loss").copied().unwrap_or_default(),
            most,
        }
    }
}

#[derive(Default)]
pub struct Oracle {
    plain: BTreeMap<(Turn, ClientId), Plain>,
    made: BTreeMap<(Turn, ClientId), Made>,
    acknowledged: BTreeMap<(Turn, ClientId), Digest>,
    /// Every sum that a client revealed shares for.
    revealed: BTreeMap<ClientId, Vec<KnownSum>>,
}

impl Oracle {
    /// A client encoded an update.
    pub fn encoded(&mut self, client: ClientId, pending: &Pending) {
        let (residual, optimizer) = (pending.residual.clone(), pending.optimizer.clone());
        let made = Made {
            digest: pending.digest,
            body: pending.body.clone(),
            samples: pending.samples,
            kept: Kept { residual, optimizer },
        };
        // A client that ended before its update was saved makes it again.
        self.made.insert((pending.turn, client), made);
    }

    /// A client trained.
    pub fn trained(&mut self, client: ClientId, turn: Turn, plain: Plain) {
        self.plain.insert((turn, client), plain);
    }

    /// A client remembers these sums. Whatever becomes of the server, no two that it ever revealed
    /// shares for are over different sets of one model, nor over sets that differ by less than it
    /// asks, beside the corrupt.
    pub fn revealed(&mut self, client: ClientId, sums: &[KnownSum], difference: usize) {
        let revealed = self.revealed.entry(client).or_default();
        for sum in sums.iter().filter(|sum| !revealed.contains(sum)).cloned().collect::<Vec<_>>() {
            for other in revealed.iter() {
                let differ = sum.members.symmetric_difference(&other.members).count();
                assert!(differ == 0 || sum.model != other.model, "{client}: {sum:?}, {other:?}");
                assert!(differ == 0 || differ >= difference, "{client}: {sum:?}, {other:?}");
            }
            revealed.push(sum);
        }
    }

    /// The server said that it has an update.
    pub fn acknowledged(&mut self, client: ClientId, turn: Turn, digest: Digest) {
        if let Some(before) = self.acknowledged.insert((turn, client), digest) {
            assert_eq!(before, digest, "two updates of {client} acknowledged in {turn}");
        }
    }

    /// An update that was acknowledged is damaged on the server's disk.
    pub fn harmed(&mut self, client: ClientId, turn: Turn) {
        self.acknowledged.remove(&(turn, client));
    }

    /// What came of rounds after this one is lost.
    pub fn lost_after(&mut self, round: u32) {
        self.acknowledged.retain(|(turn, _), _| turn.round <= round);
    }

    /// Holds a finished run against what was sent and told. `kept` is what each client has left.
    pub fn check(
        &self,
        setup: &Setup,
        initial: &[f32],
        federation: &Federation,
        kept: &BTreeMap<ClientId, SavedState>,
    ) -> Verdict {
        let plan = &setup.plan;
        let layout = plan.check().unwrap();
        let strategy = plan.strategy.build(Some(&setup.brought())).unwrap();
        let rounds = federation.rounds(0).unwrap();
        let (mut model, mut public) = (initial.to_vec(), initial.to_vec());
        let mut state = StrategyState::default();
        let mut left: BTreeMap<ClientId, &Kept> = BTreeMap::new();
        let mut scored = Scored::new(setup, Digest::of(&Codec::full(initial)));
        let nothing = Kept::default();
        for round in &rounds {
            let turn = Turn::new(round.round, round.attempt);
            let counted = federation.counted(round.round).unwrap();
            self.check_counted(plan, turn, &counted);
            for upload in &counted {
                let plain = &self.plain[&(turn, upload.client)];
                let expected = left.get(&upload.client).copied().unwrap_or(&nothing);
                assert_eq!(&plain.kept, expected, "{turn}: {} went on from this", upload.client);
                left.insert(upload.client, &self.made[&(turn, upload.client)].kept);
            }
            let mut mean = match plan.masking(&layout).unwrap() {
                Some(masking) => {
                    let loss = self.loss(turn, &counted);
                    assert!((round.training["loss"] - loss).abs() < 1e-6, "{turn}: {round:?}");
                    self.unmasked(&masking, &layout, federation, turn, &counted)
                }
                None => self.mean(plan, &layout, turn, &counted),
            };
            layout.clear_padding(&mut mean);
            if plan.updates.kind == UpdateKind::Gradient {
                mean.iter_mut().for_each(|x| *x = -*x);
            }
            strategy.step(&mut model, &mean, &mut state);
            assert_eq!(round.model, Digest::of(&Codec::full(&model)), "sum of {turn}");
            public = self.told(plan, &layout, round.round, &model, &public);
            assert_eq!(round.public, Digest::of(&Codec::full(&public)), "clients' model of {turn}");
            let losses = counted.iter().map(|upload| self.plain[&(turn, upload.client)].loss);
            scored.round(round, &public, losses.collect());
        }
        for (client, kept) in kept {
            let (residual, optimizer) = (kept.residual.clone(), kept.optimizer.clone());
            let expected = left.get(client).copied().unwrap_or(&nothing);
            assert_eq!(&Kept { residual, optimizer }, expected, "what {client} has left");
        }
        scored.verdict()
    }

    /// Whether what a round counted is what was sent, all that was acknowledged, and each once.
    fn check_counted(&self, plan: &RunPlan, turn: Turn, counted: &[CountedUpload]) {
        assert!(counted.len() >= plan.cohort.minimum as usize);
        assert!(counted.windows(2).all(|pair| pair[0].client < pair[1].client), "one twice");
        for ((_, client), digest) in self.acknowledged.iter().filter(|((t, _), _)| *t == turn) {
            let found = counted.iter().find(|upload| upload.client == *client);
            assert!(found.is_some_and(|u| u.digest == *digest), "{turn}: {client} was lost");
        }
        for upload in counted {
            let made = self.made.get(&(turn, upload.client));
            let made = made.unwrap_or_else(|| panic!("{turn}: {} sent nothing", upload.client));
            assert_eq!((made.digest, made.samples), (upload.digest, upload.samples));
            assert_eq!(Digest::of(&made.body), made.digest);
        }
    }

    /// The model as clients have it.
    fn told(
        &self,
        plan: &RunPlan,
        layout: &Layout,
        round: u32,
        model: &[f32],
        last: &[f32],
    ) -> Vec<f32> {
        if plan.updates.downlink != Encoding::Ternary {
            return model.to_vec();
        }
        let codec = Codec::new(&Device::cpu(), layout).unwrap();
        let ahead: Vec<f32> = model.iter().zip(last).map(|(new, old)| new - old).collect();
        let scales = Scales::Own(plan.updates.ternary);
        let key = [round, u32::MAX, plan.seed];
        let (body, _) = codec.ternary(&ahead, &vec![0.0; ahead.len()], scales, key).unwrap();
        add_difference(layout, last, &body).unwrap()
    }
}
