//! Products of packed halves: unpacked, then by the products of floats.

use half::f16;
use half::slice::HalfFloatSliceExt;
use tern_shaders::{Arg, TwinFn};

pub(super) static TABLE: &[(&str, TwinFn<f32>)] = &[("half/nt", nt)];

/// The numbers that words of two halves hold.
fn unpack(words: &[u32]) -> Vec<f32> {
    let halves: &[f16] = bytemuck::cast_slice(words);
    let mut floats = vec![0.0; halves.len()];
    halves.convert_to_f32_slice(&mut floats);
    floats
}

fn nt(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let [a, b, bias, c] = args else { unreachable!("four bindings") };
    let (a, b) = (unpack(a.word()), unpack(b.word()));
    let mut floats =
        [Arg::Real(&a), Arg::Real(&b), Arg::Real(bias.real()), Arg::RealMut(c.real_mut())];
    super::matmul::nt(p, replicas, &mut floats);
}
