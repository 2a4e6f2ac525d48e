//! Cases of the optimizers; training plans record them (see `Graph::train`).
//!
//! A step of gradient descent:
//!
//! ```rust
//! use tern_engine::{Activation, Arena, Device, Flat, Graph, Init, Parameters};
//! use tern_engine::{Optimizer, Training};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let mut parameters = Parameters::new();
//! let weight = parameters.add("weight", &[1, 1], Init::Constant(1.0))?;
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! // The loss is weight², its slope 2 · weight.
//! let mut graph = Graph::new(&arena);
//! let (one, zero) = (graph.constant(1.0, &[1, 1]), graph.constant(0.0, &[1, 1]));
//! let y = graph.linear(one, &weight, None, Activation::Identity)?;
//! let loss = graph.mse(y, zero, None)?;
//! let mut plan = graph.train(loss, &Training::new(Optimizer::sgd(), 0.125))?;
//! plan.run(1)?;
//! assert_eq!(arena.read(Flat::Parameters, 0)?[0], 1.0 - 0.125 * 2.0);
//! # Ok(())
//! # }
//! ```

use tern_shaders::kernels::optimizer::{
    ADAM, AMSGRAD, AVERAGE, Adam, Average, MEAN_OF_PARTS, MeanOfParts, NORM_CHUNK, NORM_FINISH,
    NORM_PARTIAL, NormFinish, NormPartial, PROXIMAL, Proximal, SGD, SGD_PLAIN, Sgd, SgdPlain,
    norm_partials,
};
use tern_shaders::schedule::Schedule;
use tern_shaders::state::{self, StateRecord};

use super::Case;
use crate::Data;

fn ramp(n: usize, scale: f32, key: usize) -> Data {
    let at = |i: usize| scale * (((i + key) * 37 % 101) as f32 / 50.0 - 1.0);
    Data::F32((0..n).map(at).collect())
}

/// Records at different steps and rates; of three replicas, the second rests, and the third's first steps
/// were skipped: it comes to its first update, or to one in the middle.
fn records(step: u32, replicas: usize) -> Data {
    let record = |r: usize| {
        let schedule = Schedule::constant(0.01 * (r + 1) as f64);
        let mut record = StateRecord::new(r as u32, 0..1, 1, u32::MAX, &schedule);
        record[state::STEP] = step;
        record[state::ACTIVE] = u32::from(r != 1);
        if r == 2 {
            record[state::SKIPPED] = if step == 3 { step } else { step / 2 };
        }
        *record
    };
    Data::U32((0..replicas).flat_map(record).collect())
}

/// A range of a flat vector: offset, words, stride.
type Range = (u32, u32, u32);

/// Cases of the optimizers on one range, `gradients` to `clip` bound as each wants.
fn range_cases(cases: &mut Vec<Case>, (offset, n, stride): Range, replicas: usize, step: u32) {
    let size = replicas * stride as usize;
    let (w, g, m) = (ramp(size, 1.0, 1), ramp(size, 3.0, 5), ramp(size, 0.5, 9));
    let v = Data::F32((0..size).map(|i| (i % 7) as f32 * 0.25).collect());
    let clip = ramp(replicas, 0.7, 3);
    let state = records(step, replicas);
    let label = format!("{n} at {offset} of {stride} step {step}");
    let work = |flops: u64| flops * u64::from(n) * replicas as u64;
    for (flag, weight_decay, rate) in [(0, 0.0, 1.0), (1, 0.125, 0.25)] {
        let (scale, clipped) = (0.5, flag);
        let p = SgdPlain { offset, n, stride, weight_decay, scale, clipped, rate };
        let buffers = vec![w.clone(), g.clone(), state.clone(), clip.clone()];
        let label = format!("{label} flags {flag}");
        cases.push(Case::new(&SGD_PLAIN, &label, &p, replicas, buffers).flops(work(5)));

        let momentum = 0.9;
        let (nesterov, fresh) = (flag, if flag == 0 { 0.75 } else { 1.0 });
        let p = Sgd {
            offset,
            n,
            stride,
            momentum,
            fresh,
            nesterov,
            weight_decay,
            scale,
            clipped,
            rate,
        };
        let buffers = vec![w.clone(), g.clone(), m.clone(), state.clone(), clip.clone()];
        cases.push(Case::new(&SGD, &label, &p, replicas, buffers).flops(work(9)));

        let (epsilon, decoupled) = (1e-8, flag);
        let p = Adam {
            offset,
            n,
            stride,
            epsilon,
            weight_decay,
            decoupled,
            scale,
            clipped,
            rate,
            ..Adam::default()
        }
        .betas(0.9, 0.999);
        let buffers = vec![w.clone(), g.clone(), m.clone(), v.clone(), state.clone(), clip.clone()];
        cases.push(Case::new(&ADAM, &label, &p, replicas, buffers).flops(work(16)));
        let largest = Data::F32((0..size).map(|i| (i % 5) as f32 * 0.25).collect());
        let buffers = [&w, &g, &m, &v, &state, &clip, &largest].map(Data::clone).to_vec();
        cases.push(Case::new(&AMSGRAD, label, &p, replicas, buffers).flops(work(17)));
    }
    let p = Average { offset, n, stride, fresh: 0.125 };
    let buffers = vec![w.clone(), m.clone(), state];
    cases.push(Case::new(&AVERAGE, &label, &p, replicas, buffers).flops(work(3)));
    // A replica whose count is zero, and others.
    let count = Data::F32((0..replicas).map(|r| 3.5 * ((r + step as usize) % 3) as f32).collect());
    let p = MeanOfParts { offset, n, stride };
    cases.push(Case::new(&MEAN_OF_PARTS, &label, &p, replicas, vec![count, g.clone()]));
    for reference_stride in [0, stride] {
        let p = Proximal { offset, n, stride, reference_stride, mu: 0.3 };
        let reference = ramp((stride + (replicas as u32 - 1) * reference_stride) as usize, 2.0, 11);
        let buffers = vec![w.clone(), reference, g.clone()];
        let label = format!("{label} reference {reference_stride}");
        cases.push(Case::new(&PROXIMAL, label, &p, replicas, buffers).flops(work(3)));
    }
    let count = norm_partials(n as usize) as u32;
    let (partial_offset, partial_stride) = (1, count + 2);
    let p = NormPartial { offset, n, stride, partial_offset, partial_stride };
    let partial = ramp(replicas * partial_stride as usize, 1.0, 13);
    let buffers = vec![g, partial];
    // The f32 reference adds the 8,192 squares of a chunk one after the other.
    let case = Case::new(&NORM_PARTIAL, label, &p, replicas, buffers);
    cases.push(case.flops(work(2)).tolerance(5e-5));
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let chunk = NORM_CHUNK;
    for (range, replicas) in [
        ((0, 1, 4), 1),
        ((4, 5, 12), 3),
        ((64, 130, 256), 2),
        ((128, 2 * chunk + 3, 2 * chunk + 192), 2),
    ] {
        for step in [0, 1, 700] {
            range_cases(&mut cases, range, replicas, step);
        }
    }
    // The last counts exceed a workgroup and are no multiple of it.
    for (count, replicas) in [(1, 1), (7, 3), (300, 2), (1031, 1)] {
        let partial_stride = count + 3;
        let partial: Vec<f32> =
            (0..replicas * partial_stride).map(|i| (i % 13) as f32 * 0.5).collect();
        for max_norm in [1.0, 1e6] {
            let p = NormFinish { count, partial_stride, max_norm, scale: 0.5 };
            let label = format!("{count} to {max_norm}");
            let out = ramp(replicas as usize, 1.0, 1);
            let buffers = vec![Data::F32(partial.clone()), out.clone(), out];
            cases.push(Case::new(&NORM_FINISH, label, &p, replicas as usize, buffers));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run_cases;

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }
}
