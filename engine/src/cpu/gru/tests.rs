use tern_shaders::kernels::gru::{GATES, SEQUENCE_BACKWARD, SEQUENCE_FORWARD};

use super::super::lstm::tests::{START, STEPS, after, close, random};
use super::*;

/// Tasks of each number of rows, vectors that are full and not, on every instruction set.
#[test]
fn every_instruction_set_and_number_of_rows_equals_the_reference() {
    for isa in Isa::available() {
        for batch in (1..=7).chain([26]) {
            for hidden in [1, 19, 70] {
                let width = GATES * hidden;
                let bias = START + width * hidden;
                let stride = bias + width;
                let what = format!("{isa:?} B {batch} H {hidden}");
                let forward = Forward {
                    t: 0,
                    steps: STEPS as u32,
                    batch: batch as u32,
                    hidden: hidden as u32,
                    w_offset: START as u32,
                    b_offset: bias as u32,
                    stride: stride as u32,
                };
                let state = batch * hidden;
                let mut weights = random(2 * stride, 1);
                weights.iter_mut().for_each(|w| *w = (*w - 0.5) / hidden as f32);
                let buffers = [
                    weights.clone(),
                    random(2 * (STEPS + 1) * state, 2),
                    random(2 * STEPS * batch * width, 4),
                    random(2 * STEPS * state, 5),
                    random(2 * STEPS * state, 6),
                ];
                let expected = after(&SEQUENCE_FORWARD, &buffers, |args| {
                    (SEQUENCE_FORWARD.reference_f32)(bytemuck::bytes_of(&forward), 2, args);
                });
                let found = after(&SEQUENCE_FORWARD, &buffers, |args| {
                    forward_on(isa.level().unwrap(), &forward, 2, args)
                });
                close(&what, &found, &expected);

                let Forward { t, steps, batch: rows, hidden: units, w_offset, .. } = forward;
                let backward = Backward {
                    t,
                    steps,
                    batch: rows,
                    hidden: units,
                    w_offset,
                    stride: stride as u32,
                    has_dy: rows % 2,
                };
                let all = 2 * STEPS * batch * width;
                let buffers = [
                    weights,
                    expected[2].clone(),
                    expected[3].clone(),
                    expected[1].clone(),
                    random(2 * STEPS * state, 7),
                    random(all, 8),
                    random(all, 9),
                    random(2 * state, 10),
                ];
                let expected = after(&SEQUENCE_BACKWARD, &buffers, |args| {
                    (SEQUENCE_BACKWARD.reference_f32)(bytemuck::bytes_of(&backward), 2, args);
                });
                let found = after(&SEQUENCE_BACKWARD, &buffers, |args| {
                    backward_on(isa.level().unwrap(), &backward, 2, args);
                });
                close(&what, &found, &expected);
            }
        }
    }
}
