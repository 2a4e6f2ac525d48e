//! What must be true of a run, worked out apart from it.

use std::collections::BTreeMap;

use tern_fl::federation::Federation;
use tern_fl::participant::Pending;
use tern_fl::plan::{Encoding, StrategySpec};
use tern_fl::update::{Codec, Format};
use tern_fl::{ClientId, Digest, RunPlan, Turn};
use tern_shaders::cpu::fixed;

/// An update as its client made it.
struct Made {
    digest: Digest,
    body: Vec<u8>,
    samples: u32,
    /// What its codes left.
    residual: Vec<f32>,
}

#[derive(Default)]
pub struct Oracle {
    made: BTreeMap<(Turn, ClientId), Made>,
    acknowledged: BTreeMap<(Turn, ClientId), Digest>,
}

impl Oracle {
    /// A client encoded an update.
    pub fn encoded(&mut self, client: ClientId, pending: &Pending) {
        let made = Made {
            digest: pending.digest,
            body: pending.body.clone(),
            samples: pending.samples,
            residual: pending.residual.clone(),
        };
        // A client that ended before its update was saved makes it again.
        self.made.insert((pending.turn, client), made);
    }

    /// The server said that it has an update.
    pub fn acknowledged(&mut self, client: ClientId, turn: Turn, digest: Digest) {
        if let Some(before) = self.acknowledged.insert((turn, client), digest) {
            assert_eq!(before, digest, "two updates of {client} acknowledged in {turn}");
        }
    }

    /// Holds a finished run against what was sent and told.
    pub fn check(&self, plan: &RunPlan, initial: &[f32], federation: &Federation) {
        let layout = plan.check().unwrap();
        let format = Format::new(plan.updates.uplink.into(), &layout, plan.updates.bound);
        let StrategySpec::Average { rate } = plan.strategy else { panic!("another strategy") };
        let rounds = federation.rounds(0).unwrap();
        assert_eq!(rounds.len(), plan.rounds as usize);
        let mut model = initial.to_vec();
        for (number, round) in rounds.iter().enumerate() {
            assert_eq!(round.round as usize, number + 1);
            let turn = Turn::new(round.round, round.attempt);
            let counted = federation.counted(round.round).unwrap();
            assert!(counted.len() >= plan.cohort.minimum as usize);
            assert!(counted.windows(2).all(|pair| pair[0].client < pair[1].client), "one twice");
            for ((_, client), digest) in self.acknowledged.iter().filter(|((t, _), _)| *t == turn) {
                let found = counted.iter().find(|upload| upload.client == *client);
                assert!(found.is_some_and(|u| u.digest == *digest), "{turn}: {client} was lost");
            }
            let mut sums = vec![0i128; layout.elements()];
            let mut weights = 0u64;
            for upload in &counted {
                let made = self.made.get(&(turn, upload.client));
                let made = made.unwrap_or_else(|| panic!("{turn}: {} sent nothing", upload.client));
                assert_eq!((made.digest, made.samples), (upload.digest, upload.samples));
                assert_eq!(Digest::of(&made.body), made.digest);
                weights += u64::from(upload.samples);
                for (sum, x) in sums.iter_mut().zip(format.decode(&made.body).unwrap()) {
                    *sum += i128::from(fixed::fixed64(x, upload.samples, plan.fraction_bits()));
                }
            }
            let mut mean: Vec<f32> = sums
                .iter()
                .map(|sum| fixed::mean((*sum).try_into().unwrap(), weights, plan.fraction_bits()))
                .collect();
            layout.clear_padding(&mut mean);
            model.iter_mut().zip(mean).for_each(|(x, d)| *x += rate as f32 * d);
            assert_eq!(round.model, Digest::of(&Codec::full(&model)), "sum of {turn}");
        }
    }

    /// The residual that a client must have after the run: that of its last counted update.
    pub fn residual(&self, federation: &Federation, plan: &RunPlan, client: &ClientId) -> Vec<f32> {
        if plan.updates.uplink != Encoding::Ternary {
            return Vec::new();
        }
        let rounds = federation.rounds(0).unwrap();
        let last = rounds.iter().rev().find(|round| {
            federation.counted(round.round).unwrap().iter().any(|upload| upload.client == *client)
        });
        let turn = last.map(|round| Turn::new(round.round, round.attempt));
        turn.map_or(Vec::new(), |turn| self.made[&(turn, *client)].residual.clone())
    }
}
