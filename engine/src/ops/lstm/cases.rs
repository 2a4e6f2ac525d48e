//! Cases of the LSTM kernels.

use tern_shaders::kernels::lstm::{
    Backward, Forward, SEQUENCE_BACKWARD, SEQUENCE_FORWARD, STATE_BACKWARD, STATE_LOAD,
    STATE_STORE, STEP_BACKWARD, STEP_FORWARD, State, StateBackward, gate_count,
};

use crate::Data;
use crate::ops::{Case, noise};

/// T, B, H and R: single elements, odd sizes, no multiple of a tile, tiles that are full, and
/// a sequence with as many loop iterations as `fits` allows an invocation.
const SIZES: [[usize; 4]; 7] = [
    [1, 1, 1, 1],
    [4, 3, 17, 2],
    [3, 11, 12, 3],
    [2, 2, 100, 1],
    [2, 10, 256, 1],
    [2, 5, 300, 1],
    [11_900, 1, 3, 1],
];

/// Floats in [0, 1), like gates that a sigmoid left.
fn gates(n: usize, key: u32) -> Data {
    match noise(n, 0.5, key) {
        Data::F32(x) => Data::F32(x.into_iter().map(|x| x + 0.5).collect()),
        words => words,
    }
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in SIZES {
        for cifg in [0, 1] {
            forward(&mut cases, size, cifg);
            // Which gradients from above there are; the long sequence is there for its length.
            let given = [[1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]];
            for given in given.into_iter().take(if size[0] < 100 { 4 } else { 1 }) {
                backward(&mut cases, size, cifg, given);
            }
            state_backward(&mut cases, size, cifg);
        }
        states(&mut cases, size);
    }
    cases
}

/// Where `W_hh` and `b_hh` start, and words of a replica's parameters.
fn layout(cifg: u32, hidden: usize) -> (usize, usize, usize) {
    let width = gate_count(cifg) * hidden;
    let bias = 64 + (width * hidden).next_multiple_of(64);
    (64, bias, bias + width.next_multiple_of(64))
}

fn weights(stride: usize, hidden: usize, replicas: usize) -> Data {
    noise(replicas * stride, 1.0 / (hidden as f32).sqrt(), 1)
}

fn label([steps, batch, hidden, _]: [usize; 4], cifg: u32) -> String {
    format!("T {steps} B {batch} H {hidden}{}", if cifg != 0 { " coupled" } else { "" })
}

fn forward(cases: &mut Vec<Case>, size: [usize; 4], cifg: u32) {
    let [steps, batch, hidden, replicas] = size;
    let (w_offset, b_offset, stride) = layout(cifg, hidden);
    let width = gate_count(cifg) * hidden;
    let rows = replicas * batch;
    let params = Forward {
        t: steps as u32 / 2,
        steps: steps as u32,
        batch: batch as u32,
        hidden: hidden as u32,
        cifg,
        w_offset: w_offset as u32,
        b_offset: b_offset as u32,
        stride: stride as u32,
    };
    let buffers = vec![
        weights(stride, hidden, replicas),
        noise((steps + 1) * rows * hidden, 1.0, 2),
        noise((steps + 1) * rows * hidden, 1.0, 3),
        noise(steps * rows * width, 1.0, 4),
        noise(steps * rows * hidden, 1.0, 5),
    ];
    let flops = (2 * rows * width * hidden) as u64;
    for (kernel, times) in [(&STEP_FORWARD, 1), (&SEQUENCE_FORWARD, steps as u64)] {
        let case = Case::new(kernel, label(size, cifg), &params, replicas, buffers.clone());
        cases.push(case.flops(times * flops));
    }
}

fn backward(cases: &mut Vec<Case>, size: [usize; 4], cifg: u32, given: [u32; 3]) {
    let [steps, batch, hidden, replicas] = size;
    let (w_offset, _, stride) = layout(cifg, hidden);
    let width = gate_count(cifg) * hidden;
    let rows = replicas * batch;
    let [has_dy, has_dh, has_dc] = given;
    let params = Backward {
        t: steps as u32 / 2,
        steps: steps as u32,
        batch: batch as u32,
        hidden: hidden as u32,
        cifg,
        w_offset: w_offset as u32,
        stride: stride as u32,
        has_dy,
        has_dh,
        has_dc,
    };
    let buffers = vec![
        weights(stride, hidden, replicas),
        gates(steps * rows * width, 2),
        noise((steps + 1) * rows * hidden, 1.0, 3),
        noise(steps * rows * hidden, 1.0, 4),
        noise(rows * hidden, 1.0, 5),
        noise(rows * hidden, 1.0, 6),
        noise(steps * rows * width, 1.0, 7),
        noise(rows * hidden, 1.0, 8),
    ];
    let flops = (2 * rows * width * hidden) as u64;
    let label = format!("{}, given {given:?}", label(size, cifg));
    let last = Backward { t: params.steps - 1, ..params };
    for (kernel, params, times) in [
        (&STEP_BACKWARD, params, 1),
        (&STEP_BACKWARD, last, 0),
        (&SEQUENCE_BACKWARD, params, steps as u64 - 1),
    ] {
        let label = format!("{label}, t {}", params.t);
        let case = Case::new(kernel, label, &params, replicas, buffers.clone());
        cases.push(case.flops(times * flops));
    }
}

fn state_backward(cases: &mut Vec<Case>, size: [usize; 4], cifg: u32) {
    let [steps, batch, hidden, replicas] = size;
    let (w_offset, _, stride) = layout(cifg, hidden);
    let rows = replicas * batch;
    for (accumulate_h, accumulate_c) in [(0, 1), (1, 0)] {
        let params = StateBackward {
            steps: steps as u32,
            batch: batch as u32,
            hidden: hidden as u32,
            cifg,
            w_offset: w_offset as u32,
            stride: stride as u32,
            accumulate_h,
            accumulate_c,
        };
        let buffers = vec![
            weights(stride, hidden, replicas),
            noise(steps * rows * gate_count(cifg) * hidden, 1.0, 2),
            noise(rows * hidden, 1.0, 3),
            noise(rows * hidden, 1.0, 4),
            noise(rows * hidden, 1.0, 5),
        ];
        let label = format!("{}, accumulate {accumulate_h} {accumulate_c}", label(size, cifg));
        cases.push(Case::new(&STATE_BACKWARD, label, &params, replicas, buffers));
    }
}

fn states(cases: &mut Vec<Case>, size: [usize; 4]) {
    let [steps, batch, hidden, replicas] = size;
    let n = batch * hidden;
    let one = |key| noise(replicas * n, 1.0, key);
    let all = |key| noise(replicas * (steps + 1) * n, 1.0, key);
    for zero in [0, 1] {
        let params = State { n: n as u32, steps: steps as u32, zero };
        let buffers = vec![one(1), one(2), all(3), all(4)];
        let label = format!("{}, zero {zero}", label(size, 0));
        cases.push(Case::new(&STATE_LOAD, label, &params, replicas, buffers));
    }
    let params = State { n: n as u32, steps: steps as u32, zero: 0 };
    let buffers = vec![all(1), all(2), one(3), one(4)];
    cases.push(Case::new(&STATE_STORE, label(size, 0), &params, replicas, buffers));
}
