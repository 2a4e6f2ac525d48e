//! What must be true of a run, worked out apart from it.

use std::collections::BTreeMap;

use tern_engine::Device;
use tern_fl::participant::Pending;
use tern_fl::plan::{Encoding, StrategySpec};
use tern_fl::server::federation::Federation;
use tern_fl::server::journal::CountedUpload;
use tern_fl::trainer::{Trained, coding_key};
use tern_fl::update::{Codec, Format};
use tern_fl::{ClientId, Code, Digest, Layout, Masking, RunPlan, Turn, wire};
use tern_secagg::Masks;
use tern_shaders::kernels::fixed;

/// An update as its client made it.
struct Made {
    digest: Digest,
    body: Vec<u8>,
    samples: u32,
    /// What its codes left.
    residual: Vec<f32>,
}

/// What a client put into an update, before it was encoded.
pub struct Plain {
    update: Vec<f32>,
    samples: u32,
    residual: Vec<f32>,
    scales: Vec<f32>,
    loss: f64,
    /// The most samples of a member of its session.
    most: u32,
}

impl Plain {
    pub fn new(trained: &Trained, residual: Vec<f32>, asked: &wire::Train, most: u32) -> Self {
        Plain {
            update: trained.update.clone(),
            samples: trained.samples,
            residual,
            scales: asked.scales.clone(),
            loss: trained.metrics["loss"],
            most,
        }
    }
}

#[derive(Default)]
pub struct Oracle {
    plain: BTreeMap<(Turn, ClientId), Plain>,
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

    /// A client trained.
    pub fn trained(&mut self, client: ClientId, turn: Turn, plain: Plain) {
        self.plain.insert((turn, client), plain);
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

    /// Holds a finished run against what was sent and told.
    pub fn check(&self, plan: &RunPlan, initial: &[f32], federation: &Federation) {
        let layout = plan.check().unwrap();
        let StrategySpec::Average { learning_rate } = plan.strategy else {
            panic!("another strategy")
        };
        let rounds = federation.rounds(0).unwrap();
        // A secure round may be abandoned once shares were revealed.
        assert!(plan.secure.is_some() || rounds.len() == plan.rounds as usize);
        assert!(rounds.windows(2).all(|pair| pair[0].round < pair[1].round));
        let mut model = initial.to_vec();
        for round in &rounds {
            assert!(round.round <= plan.rounds);
            let turn = Turn::new(round.round, round.attempt);
            let counted = federation.counted(round.round).unwrap();
            assert!(counted.len() >= plan.cohort.minimum as usize);
            assert!(counted.windows(2).all(|pair| pair[0].client < pair[1].client), "one twice");
            for ((_, client), digest) in self.acknowledged.iter().filter(|((t, _), _)| *t == turn) {
                let found = counted.iter().find(|upload| upload.client == *client);
                assert!(found.is_some_and(|u| u.digest == *digest), "{turn}: {client} was lost");
            }
            for upload in &counted {
                let made = self.made.get(&(turn, upload.client));
                let made = made.unwrap_or_else(|| panic!("{turn}: {} sent nothing", upload.client));
                assert_eq!((made.digest, made.samples), (upload.digest, upload.samples));
                assert_eq!(Digest::of(&made.body), made.digest);
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
            model.iter_mut().zip(mean).for_each(|(x, d)| *x += learning_rate as f32 * d);
            assert_eq!(round.model, Digest::of(&Codec::full(&model)), "sum of {turn}");
        }
    }

    /// The weighted mean of bodies, one after the other in numbers that can't overflow.
    fn mean(
        &self,
        plan: &RunPlan,
        layout: &Layout,
        turn: Turn,
        counted: &[CountedUpload],
    ) -> Vec<f32> {
        let format = Format::new(plan.updates.uplink.into(), layout, plan.updates.bound);
        let (mut sums, mut weights) = (vec![0i128; layout.elements()], 0);
        for upload in counted {
            weights += u64::from(upload.samples);
            let values = format.decode(&self.made[&(turn, upload.client)].body).unwrap();
            for (sum, x) in sums.iter_mut().zip(values) {
                *sum += i128::from(fixed::fixed64(x, upload.samples, plan.fraction_bits()));
            }
        }
        let mean = |sum: i128| fixed::mean(sum as i64, weights, plan.fraction_bits());
        sums.into_iter().map(mean).collect()
    }

    /// The mean of what clients measured, weighted by samples.
    fn loss(&self, turn: Turn, counted: &[CountedUpload]) -> f64 {
        let measured = counted.iter().map(|upload| {
            let plain = &self.plain[&(turn, upload.client)];
            (plain.loss * f64::from(plain.samples), f64::from(plain.samples))
        });
        let (sum, weight) = measured.fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        sum / weight
    }

    /// The mean of what clients trained, encoded as they did but never masked.
    fn unmasked(
        &self,
        masking: &Masking,
        layout: &Layout,
        federation: &Federation,
        turn: Turn,
        counted: &[CountedUpload],
    ) -> Vec<f32> {
        let codec = Codec::new(&Device::cpu(), layout).unwrap();
        let mut sum = vec![0u32; masking.vector_words()];
        let (mut weight, mut most, mut scales) = (0, 1, Vec::new());
        let nothing = Masks::default();
        for upload in counted {
            let plain = &self.plain[&(turn, upload.client)];
            let words = match masking.code {
                Code::Fixed(code) => {
                    let share = plain.samples as f32 / plain.most as f32;
                    let update: Vec<f32> = plain.update.iter().map(|x| x * share).collect();
                    codec.masked(&update, code, &nothing).unwrap()
                }
                Code::Lanes(cohort) => {
                    let mut residual = plain.residual.clone();
                    residual.resize(layout.elements(), 0.0);
                    let key = coding_key(&federation.task().run, turn, &upload.client);
                    let (update, scales) = (&plain.update, &plain.scales);
                    let coded =
                        codec.masked_ternary(update, &residual, scales, key, cohort, &nothing);
                    coded.unwrap().0
                }
            };
            sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(word));
            weight += u64::from(plain.samples);
            most = plain.most;
            scales.clone_from(&plain.scales);
        }
        match masking.code {
            Code::Fixed(code) => {
                let factor = f64::from(most) / weight as f64;
                let total = codec.unmasked(&sum, code).unwrap();
                total.into_iter().map(|x| (f64::from(x) * factor) as f32).collect()
            }
            Code::Lanes(cohort) => {
                codec.unmasked_ternary(&sum, &scales, cohort, counted.len() as u32).unwrap()
            }
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
