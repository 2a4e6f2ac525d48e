//! Sums of updates, of what clients made.

use tern_engine::Device;
use tern_fl::server::federation::Federation;
use tern_fl::server::journal::CountedUpload;
use tern_fl::trainer::coding_key;
use tern_fl::update::{Codec, Format};
use tern_fl::{Code, Layout, Masking, RunPlan, Turn};
use tern_secagg::Masks;
use tern_shaders::kernels::fixed;

use super::Oracle;

impl Oracle {
    /// The weighted mean of bodies, one after the other in numbers that can't overflow.
    pub(super) fn mean(
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
    pub(super) fn loss(&self, turn: Turn, counted: &[CountedUpload]) -> f64 {
        let measured = counted.iter().map(|upload| {
            let plain = &self.plain[&(turn, upload.client)];
            (plain.loss * f64::from(plain.samples), f64::from(plain.samples))
        });
        let (sum, weight) = measured.fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        sum / weight
    }

    /// The mean of what clients trained, encoded as they did but never masked.
    pub(super) fn unmasked(
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
                    let mut residual = plain.kept.residual.clone();
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
}
