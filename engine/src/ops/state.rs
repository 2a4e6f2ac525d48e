//! Cases of the state records' check and advance; training plans record them (see `Graph::train`).
//!
//! What a plan's records say after its steps:
//!
//! ```rust
//! use tern_engine::{Activation, Arena, Device, Graph, Init, Parameters};
//! use tern_engine::{Optimizer, Training};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let mut parameters = Parameters::new();
//! let weight = parameters.add("weight", &[1, 1], Init::Constant(1.0))?;
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let (one, zero) = (graph.constant(1.0, &[1, 1]), graph.constant(0.0, &[1, 1]));
//! let y = graph.linear(one, &weight, None, Activation::Identity)?;
//! let loss = graph.mse(y, zero, None)?;
//! let training = Training::new(Optimizer::sgd(), 0.1).limit(2);
//! let mut plan = graph.train(loss, &training)?;
//! // The model stops at its limit.
//! plan.run(3)?;
//! let record = plan.states()?[0];
//! assert_eq!((record.steps(), record.is_active()), (2, false));
//! # Ok(())
//! # }
//! ```

use tern_shaders::kernels::state::{
    ADVANCE, Advance, CHECK, Check, LOSS_SCALES, LossScales, RESCALE, RING_CHANNELS, Rescale,
};
use tern_shaders::schedule::{Decay, Schedule};
use tern_shaders::state::{self, StateRecord};

use super::Case;
use crate::Data;

/// A case of three replicas: one begins an epoch, one ends an epoch, one is at its limit.
fn case(label: &str, schedule: &Schedule, step: u32, stream: bool) -> Case {
    let (replicas, capacity, batch) = (3, 5, 4);
    let p = Advance::new(batch, stream, capacity, schedule);
    let record = |r: u32| {
        let limit = if r == 2 { step + 1 } else { u32::MAX };
        let mut record = StateRecord::new(r, 0..10, batch, limit, schedule);
        record[state::STEP] = step;
        record[state::CURSOR] = [0, if stream { 9 } else { 8 }, 4][r as usize];
        record[state::ACTIVE] = 1;
        *record.scaled([1.0, 0.5, 3.0][r as usize])
    };
    let mut records: Vec<u32> = (0..replicas).flat_map(record).collect();
    // A fourth, which rests.
    records.extend([7; state::WORDS]);
    records[3 * state::WORDS + state::ACTIVE] = 0;
    let floats = |n: usize| Data::F32((0..n).map(|i| i as f32 + 0.5).collect());
    let ring = floats(4 * capacity as usize * RING_CHANNELS);
    Case::new(
        &ADVANCE,
        format!("{label} step {step}"),
        &p,
        4,
        vec![Data::U32(records), floats(4), floats(4), ring],
    )
}

/// A case of replicas whose loss or norm is not finite, with one that rests, and a factor on the loss or
/// none.
fn check_case(clipped: u32, factor: Option<f32>) -> Case {
    let strange = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45, -0.0];
    let pairs = strange.iter().flat_map(|x| [(*x, 1.0), (1.0, *x)]);
    let (loss, norm): (Vec<f32>, Vec<f32>) = pairs.chain([(f32::NAN, f32::NAN)]).unzip();
    let mut record = StateRecord::new(0, 0..8, 4, 9, &Schedule::constant(0.1));
    record[state::LOSS_SCALE] = factor.map_or(0, f32::to_bits);
    let mut records = vec![record; loss.len() - 1];
    records.push(StateRecord::IDLE);
    Case::new(
        &CHECK,
        format!("clipped {clipped}, factor {factor:?}"),
        &Check { clipped, initial: factor.map_or(0.0, |_| 2.0) },
        loss.len(),
        vec![Data::U32(StateRecord::words(&records)), Data::F32(loss), Data::F32(norm)],
    )
}

/// Cases of factors on the loss: new and old ones, steps that are skipped or not, the last before the factor
/// grows, a factor that can't grow, a replica that rests.
fn scale_cases(cases: &mut Vec<Case>) {
    let record = StateRecord::new(0, 0..8, 4, 9, &Schedule::constant(0.1));
    let mut records = Vec::new();
    for scale in [0.0f32, 1.0, 1.5, 1024.0, 3e38] {
        for (skips, active, steady) in [(0, 1, 0), (0, 1, 4), (0, 0, 4), (1, 0, 3)] {
            let mut record = record;
            record[state::LOSS_SCALE] = scale.to_bits();
            record[state::SKIPS] = skips;
            record[state::ACTIVE] = active;
            record[state::STEADY] = steady;
            records.push(record);
        }
    }
    let n = records.len();
    let words = || Data::U32(StateRecord::words(&records));
    let params = LossScales { initial: 512.0 };
    let buffers = vec![words(), Data::F32(vec![7.0; n])];
    cases.push(Case::new(&LOSS_SCALES, "old and new", &params, n, buffers));
    let params = Rescale { initial: 512.0, growth: 2.0, backoff: 0.25, interval: 5 };
    cases.push(Case::new(&RESCALE, "every way", &params, n, vec![words()]));
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let schedule = |decay| Schedule { base: 0.5, warmup: 8, decay };
    let mut cases = vec![
        case("constant", &Schedule::constant(0.1), 0, false),
        case("stream", &Schedule::constant(0.1), 12, true),
        check_case(0, None),
        check_case(1, None),
        check_case(1, Some(1.0)),
        check_case(1, Some(64.0)),
        check_case(1, Some(0.0)),
    ];
    scale_cases(&mut cases);
    for (label, decay) in [
        ("cosine", Decay::Cosine { total: 200, floor: 0.01 }),
        ("steps", Decay::Step { gamma: 0.3, period: 7 }),
        ("exponential", Decay::Exponential { gamma: 0.99 }),
        ("line", Decay::Linear { total: 200, floor: 0.01 }),
    ] {
        for step in [0, 6, 7, 8, 20, 111, 198, 199, 1000] {
            // Rounding on the way may change the bits of the three rates.
            let mut case = case(label, &schedule(decay), step, false);
            case.words_may_differ = 3.0 / (4 * state::WORDS) as f64;
            cases.push(case);
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{run_cases, software};
    use crate::{Device, Result};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    /// Learning rates that a device sets for the steps from 1 on.
    fn rates(device: &Device, schedule: &Schedule, steps: u32) -> Result<Vec<f64>> {
        let p = Advance::new(1, false, 1, schedule);
        let record = |step| {
            let mut record = StateRecord::new(0, 0..1, 1, u32::MAX, schedule);
            record[state::STEP] = step;
            *record
        };
        let records = Data::U32((0..steps).flat_map(record).collect());
        let n = steps as usize;
        let (one, ring) = (Data::F32(vec![1.0; n]), Data::F32(vec![0.0; n * RING_CHANNELS]));
        let case = Case::new(&ADVANCE, "rates", &p, n, vec![records, one.clone(), one, ring]);
        let state = device.wait(case.on(device))?.swap_remove(0);
        let rate = |record: &[f64]| f64::from(f32::from_bits(record[state::RATE] as u32));
        Ok(state.chunks(state::WORDS).map(rate).collect())
    }

    #[test]
    fn a_device_follows_the_schedule() {
        let schedules = [
            Decay::Constant,
            Decay::Cosine { total: 60, floor: 0.01 },
            Decay::Step { gamma: 0.3, period: 7 },
            Decay::Exponential { gamma: 0.95 },
            Decay::Linear { total: 60, floor: 0.01 },
        ]
        .map(|decay| Schedule { base: 0.5, warmup: 8, decay });
        let cpu = [("cpu", Device::cpu())];
        for (name, device) in cpu.iter().chain(software()) {
            for schedule in &schedules {
                for (step, rate) in (1..).zip(rates(device, schedule, 80).unwrap()) {
                    let expected = schedule.rate(step);
                    assert!(
                        (rate - expected).abs() <= 5e-7,
                        "{name}, {schedule:?}, step {step}: {rate} for {expected}"
                    );
                }
            }
        }
    }
}
