//! Cases of the GRU kernels.

use tern_shaders::kernels::gru::{
    Backward, Forward, GATES, SEQUENCE_BACKWARD, SEQUENCE_FORWARD, STEP_BACKWARD, STEP_FORWARD,
};

use crate::Data;
use crate::ops::{Case, noise};

/// T, B, H and R: single elements, odd sizes, no multiple of a tile, tiles that are full, and a
/// sequence with nearly as many loop iterations as an invocation may take.
const SIZES: [[usize; 4]; 7] = [
    [1, 1, 1, 1],
    [4, 3, 17, 2],
    [3, 11, 12, 3],
    [2, 2, 100, 1],
    [2, 10, 256, 1],
    [2, 5, 300, 1],
    [11_900, 1, 3, 1],
];

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in SIZES {
        forward(&mut cases, size);
        for has_dy in [1, 0] {
            backward(&mut cases, size, has_dy);
        }
    }
    cases
}

/// Where `W_hh` and `b_hh` start, and words of a replica's parameters.
fn layout(hidden: usize) -> (usize, usize, usize) {
    let width = GATES * hidden;
    let bias = 64 + (width * hidden).next_multiple_of(64);
    (64, bias, bias + width.next_multiple_of(64))
}

fn weights(stride: usize, hidden: usize, replicas: usize) -> Data {
    noise(replicas * stride, 1.0 / (hidden as f32).sqrt(), 1)
}

fn label([steps, batch, hidden, _]: [usize; 4]) -> String {
    format!("T {steps} B {batch} H {hidden}")
}

fn forward(cases: &mut Vec<Case>, size: [usize; 4]) {
    let [steps, batch, hidden, replicas] = size;
    let (w_offset, b_offset, stride) = layout(hidden);
    let (width, rows) = (GATES * hidden, replicas * batch);
    let params = Forward {
        t: steps as u32 / 2,
        steps: steps as u32,
        batch: batch as u32,
        hidden: hidden as u32,
        w_offset: w_offset as u32,
        b_offset: b_offset as u32,
        stride: stride as u32,
    };
    let buffers = vec![
        weights(stride, hidden, replicas),
        noise((steps + 1) * rows * hidden, 1.0, 2),
        noise(steps * rows * width, 1.0, 3),
        noise(steps * rows * hidden, 1.0, 4),
        noise(steps * rows * hidden, 1.0, 5),
    ];
    let flops = (2 * rows * width * hidden) as u64;
    for (kernel, times) in [(&STEP_FORWARD, 1), (&SEQUENCE_FORWARD, steps as u64)] {
        let case = Case::new(kernel, label(size), &params, replicas, buffers.clone());
        cases.push(case.flops(times * flops));
    }
}

fn backward(cases: &mut Vec<Case>, size: [usize; 4], has_dy: u32) {
    let [steps, batch, hidden, replicas] = size;
    let (w_offset, _, stride) = layout(hidden);
    let (width, rows) = (GATES * hidden, replicas * batch);
    let params = Backward {
        t: steps as u32 / 2,
        steps: steps as u32,
        batch: batch as u32,
        hidden: hidden as u32,
        w_offset: w_offset as u32,
        stride: stride as u32,
        has_dy,
    };
    // Gates as a sigmoid leaves them; the new one's sign doesn't matter.
    let gates = match noise(steps * rows * width, 0.5, 2) {
        Data::F32(x) => Data::F32(x.into_iter().map(|x| x + 0.5).collect()),
        words => words,
    };
    let buffers = vec![
        weights(stride, hidden, replicas),
        gates,
        noise(steps * rows * hidden, 1.0, 3),
        noise((steps + 1) * rows * hidden, 1.0, 4),
        noise(steps * rows * hidden, 1.0, 5),
        noise(steps * rows * width, 1.0, 6),
        noise(steps * rows * width, 1.0, 7),
        noise(rows * hidden, 1.0, 8),
    ];
    let flops = (2 * rows * width * hidden) as u64;
    let last = Backward { t: params.steps - 1, ..params };
    for (kernel, params, times) in [
        (&STEP_BACKWARD, params, 1),
        (&STEP_BACKWARD, last, 0),
        (&SEQUENCE_BACKWARD, params, steps as u64 - 1),
    ] {
        let label = format!("{}, dy {has_dy}, t {}", label(size), params.t);
        let case = Case::new(kernel, label, &params, replicas, buffers.clone());
        cases.push(case.flops(times * flops));
    }
}
