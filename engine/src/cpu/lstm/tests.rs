use tern_shaders::AnyKernel;
use tern_shaders::kernels::lstm::{SEQUENCE_BACKWARD, SEQUENCE_FORWARD};
use tern_shaders::{Access, kernels::random};

use super::*;

pub(crate) const STEPS: usize = 3;
/// Where the weights start in a replica's parameters.
pub(crate) const START: usize = 64;

pub(crate) fn random(n: usize, key: u32) -> Vec<f32> {
    (0..n as u32).map(|i| random::uniform(random::pcg4d([i, key, 1, 2])[0])).collect()
}

/// Buffers of a kernel after `run`.
pub(crate) fn after(
    kernel: &AnyKernel,
    buffers: &[Vec<f32>],
    run: impl FnOnce(&mut [Arg<'_, f32>]),
) -> Vec<Vec<f32>> {
    let mut buffers = buffers.to_vec();
    let mut args: Vec<Arg<'_, f32>> = buffers
        .iter_mut()
        .zip(kernel.bindings)
        .map(|(buffer, binding)| match binding.access {
            Access::Read => Arg::Real(buffer),
            Access::ReadWrite => Arg::RealMut(buffer),
        })
        .collect();
    run(&mut args);
    buffers
}

pub(crate) fn close(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 2e-5, "{what}: {found}, expected {expected}");
    }
}

/// Tasks of each number of rows, vectors that are full and not, on every instruction set.
#[test]
fn every_instruction_set_and_number_of_rows_equals_the_reference() {
    for isa in Isa::available() {
        for batch in (1..=11).chain([26]) {
            for (hidden, cifg) in [(1, 0), (19, 1), (70, 0)] {
                let width = gate_count(cifg) * hidden;
                let bias = START + width * hidden;
                let stride = bias + width;
                let what = format!("{isa:?} B {batch} H {hidden} coupled {cifg}");
                let forward = Forward {
                    t: 0,
                    steps: STEPS as u32,
                    batch: batch as u32,
                    hidden: hidden as u32,
                    cifg,
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
                    random(2 * (STEPS + 1) * state, 3),
                    random(2 * STEPS * batch * width, 4),
                    random(2 * STEPS * state, 5),
                ];
                let expected = after(&SEQUENCE_FORWARD, &buffers, |args| {
                    (SEQUENCE_FORWARD.reference_f32)(bytemuck::bytes_of(&forward), 2, args);
                });
                let found = after(&SEQUENCE_FORWARD, &buffers, |args| {
                    forward_on(isa.level().unwrap(), &forward, 2, args)
                });
                close(&what, &found, &expected);

                let backward = Backward {
                    t: 0,
                    steps: STEPS as u32,
                    batch: batch as u32,
                    hidden: hidden as u32,
                    cifg,
                    w_offset: START as u32,
                    stride: stride as u32,
                    has_dy: u32::from(batch % 2 == 0),
                    has_dh: 1,
                    has_dc: u32::from(batch % 3 == 0),
                };
                let buffers = [
                    weights,
                    expected[3].clone(),
                    expected[2].clone(),
                    random(2 * STEPS * state, 6),
                    random(2 * state, 7),
                    random(2 * state, 8),
                    random(2 * STEPS * batch * width, 9),
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
