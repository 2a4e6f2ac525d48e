//! Floats to numbers of 16 bits and back, and products of these: unpacked, then by the products of
//! floats.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::half::{Format, Pack, Transpose};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::mixed::{get, set};
use super::parallel::rows;
use super::vector::lanes;

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("half/pack", pack),
    ("half/nt", |p, replicas, args| product(Format::Half, p, replicas, args)),
    ("half/bf16_nt", |p, replicas, args| product(Format::Bf16, p, replicas, args)),
    ("half/transpose", transpose),
];

/// What is above it, in bits, is infinite or NaN.
const INFINITE: u32 = 0x7f80_0000;
/// Bits of a float's mantissa that a half's has not.
const LOST: u32 = 13;

/// The bits of the halves nearest to some numbers, ties to even.
#[inline(always)]
fn half_bits<S: Simd>(s: S, x: S::f32s) -> S::u32s {
    let bits: S::u32s = x.bitcast();
    let magnitude = bits & 0x7fff_ffff;
    // The exponent's other bias, and up by just less than half of the last bit that stays; by half
    // if that bit is set. What is too large would run over.
    let bias = (127u32 - 15) << 23;
    let odd = (magnitude >> LOST) & 1;
    let normal = (magnitude + (0x0fffu32.wrapping_sub(bias)) + odd) >> LOST;
    // A half's subnormal numbers are whole multiples of 2^-24, the last bit of floats from 0.5 on.
    let sum = magnitude.bitcast::<S::f32s>() + 0.5;
    let subnormal = sum.bitcast::<S::u32s>() - 0.5f32.to_bits();
    // NaN keeps its upper bits and becomes quiet.
    let infinite = S::u32s::splat(s, 0x7c00);
    let nan = ((magnitude >> LOST) & 0x03ff) | 0x7e00;
    let half = magnitude.simd_lt((127 - 14) << 23).select(subnormal, normal);
    let half = magnitude.simd_ge((127 + 16) << 23).select(infinite, half);
    let half = magnitude.simd_gt(INFINITE).select(nan, half);
    half | ((bits >> 16) & 0x8000)
}

/// The bits of the bfloat16 nearest to some numbers, ties to even.
#[inline(always)]
fn bf16_bits<S: Simd>(x: S::f32s) -> S::u32s {
    let bits: S::u32s = x.bitcast();
    let odd = (bits >> 16) & 1;
    let near = (bits + 0x7fff + odd) >> 16;
    let nan = (bits >> 16) | 0x40;
    (bits & 0x7fff_ffff).simd_gt(INFINITE).select(nan, near)
}

#[inline(always)]
fn bits<S: Simd>(s: S, format: Format, x: S::f32s) -> S::u32s {
    match format {
        Format::Half => half_bits(s, x),
        Format::Bf16 => bf16_bits::<S>(x),
    }
}

#[inline(always)]
fn number<S: Simd>(format: Format, bits: S::u32s) -> S::f32s {
    match format {
        Format::Half => half_number::<S>(bits),
        Format::Bf16 => (bits << 16).bitcast(),
    }
}

/// The numbers of some halves.
#[inline(always)]
fn half_number<S: Simd>(half: S::u32s) -> S::f32s {
    let magnitude = (half & 0x7fff) << LOST;
    // Exact, subnormal numbers included.
    let scaled = magnitude.bitcast::<S::f32s>() * f32::from_bits((127 + 127 - 15) << 23);
    let scaled: S::u32s = scaled.bitcast();
    let infinite = (half & 0x7c00).simd_eq(0x7c00);
    let number = infinite.select(magnitude | INFINITE, scaled);
    (number | ((half & 0x8000) << 16)).bitcast()
}

/// out = x in 16 bits, two a word. Shapes: `x` `[2 n]`, `out` `[n]`.
#[inline(always)]
fn pack_slice<S: Simd>(s: S, format: Format, x: &[f32], out: &mut [u32]) {
    let width = lanes::<S>();
    for (x, out) in x.chunks(2 * width).zip(out.chunks_mut(width)) {
        let (low, high) = x.split_at(width.min(x.len()));
        let low = bits(s, format, get(s, low, low.len()));
        let high = bits(s, format, get(s, high, high.len()));
        set::<S, S::u32s>(out, out.len(), low.narrow(high).bitcast());
    }
}

/// out = the numbers of words of two. Shapes: `words` `[n]`, `out` `[2 n]`.
#[inline(always)]
fn unpack_slice<S: Simd>(s: S, format: Format, words: &[u32], out: &mut [f32]) {
    let width = lanes::<S>();
    for (words, out) in words.chunks(width).zip(out.chunks_mut(2 * width)) {
        let halves: S::u16s = get::<S, S::u32s>(s, words, words.len()).bitcast();
        let (low, high) = halves.widen();
        let (first, second) = out.split_at_mut(width.min(out.len()));
        set(first, first.len(), number::<S>(format, low));
        set(second, second.len(), number::<S>(format, high));
    }
}

fn pack(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Pack = bytemuck::from_bytes(p);
    let [x, out] = args else { unreachable!("two bindings") };
    let (n, x, format) = (p.n as usize, x.real(), Format::from(p.format));
    let out = &mut out.word_mut()[..replicas * (n / 2)];
    for (r, out) in out.chunks_mut((n / 2).max(1)).enumerate() {
        let x = &x[p.offset as usize + r * p.stride as usize..][..n];
        rows(out, 1, 2, |first, out| {
            let x = &x[2 * first..][..2 * out.len()];
            with_vectors!(s => pack_slice(s, format, x, out));
        });
    }
}

/// The numbers that words of two hold.
fn unpack(format: Format, words: &[u32]) -> Vec<f32> {
    let mut floats = vec![0.0; 2 * words.len()];
    rows(&mut floats, 2, 2, |first, floats| {
        let words = &words[first..][..floats.len() / 2];
        with_vectors!(s => unpack_slice(s, format, words, floats));
    });
    floats
}

fn product(format: Format, p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let [a, b, bias, c] = args else { unreachable!("four bindings") };
    let (a, b) = (unpack(format, a.word()), unpack(format, b.word()));
    let mut floats =
        [Arg::Real(&a), Arg::Real(&b), Arg::Real(bias.real()), Arg::RealMut(c.real_mut())];
    super::matmul::nt(p, replicas, &mut floats);
}

/// Words side by side of a row that are read together: what they hold of a few columns stays in a cache.
const ACROSS: usize = 16;

fn transpose(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Transpose = bytemuck::from_bytes(p);
    let [x, out] = args else { unreachable!("two bindings") };
    let (down, across) = (p.rows as usize / 2, p.columns as usize / 2);
    let x = x.word();
    for r in 0..replicas {
        let n = 2 * down * across;
        let (x, out) = (&x[r * n..][..n], &mut out.word_mut()[r * n..][..n]);
        // A task turns whole pairs of columns, which are pairs of rows of `out`.
        let width = 2 * down * ACROSS;
        rows(out, width, width, |first, out| {
            for (block, out) in out.chunks_mut(width).enumerate() {
                let j = first * ACROSS + block * ACROSS;
                for (i, pair) in x.chunks_exact(2 * across).enumerate() {
                    let (upper, lower) = pair.split_at(across);
                    for (k, columns) in out.chunks_exact_mut(2 * down).enumerate() {
                        let (a, b) = (upper[j + k], lower[j + k]);
                        columns[i] = (a & 0xffff) | (b << 16);
                        columns[down + i] = (a >> 16) | (b & 0xffff_0000);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::super::isa::Isa;
    use super::*;

    fn packed(isa: Isa, format: Format, x: &[f32]) -> Vec<u32> {
        let mut out = vec![7; x.len() / 2];
        with_vectors!(isa.level().unwrap(), s => pack_slice(s, format, x, &mut out));
        out
    }

    type Judge = (fn(u16) -> f32, fn(f32) -> u16);

    /// What the `half` crate makes of bits, and which bits of a number.
    fn judge(format: Format) -> Judge {
        match format {
            Format::Half => (|bits| f16::from_bits(bits).to_f32(), |x| f16::from_f32(x).to_bits()),
            Format::Bf16 => {
                (|bits| bf16::from_bits(bits).to_f32(), |x| bf16::from_f32(x).to_bits())
            }
        }
    }

    #[test]
    fn every_number_comes_back_and_its_neighbors_round_to_it() {
        for (isa, format) in
            Isa::available().flat_map(|isa| [(isa, Format::Half), (isa, Format::Bf16)])
        {
            let (number, bits) = judge(format);
            let words: Vec<u32> = (0..1 << 15).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect();
            let mut numbers = vec![0.0; 2 * words.len()];
            with_vectors!(isa.level().unwrap(), s => unpack_slice(s, format, &words, &mut numbers));
            for (bits, found) in (0..=u16::MAX).zip(&numbers) {
                let expected = number(bits);
                let equal = found.to_bits() == expected.to_bits();
                assert!(equal || found.is_nan() && expected.is_nan(), "{isa} {format:?} {bits:x}");
            }
            for neighbor in [
                -0x8001, -0x8000, -0x1001, -0x1000, -0xfff, -1, 0, 1, 0xfff, 0x1000, 0x1001,
                0x7fff, 0x8000, 0x8001,
            ] {
                let near = |x: &f32| f32::from_bits(x.to_bits().wrapping_add_signed(neighbor));
                let x: Vec<f32> = numbers.iter().map(near).collect();
                let expected: Vec<u16> = x.iter().map(|x| bits(*x)).collect();
                let found = packed(isa, format, &x);
                assert!(found == bytemuck::cast_slice::<u16, u32>(&expected), "{isa} {format:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_floats_are_packed_as_the_reference_does(
            bits in proptest::collection::vec(any::<u32>(), 2..100),
            format in 0u32..2,
        ) {
            let x: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            let x = &x[..x.len() / 2 * 2];
            let p = Pack { n: x.len() as u32, format, ..Pack::default() };
            let mut expected = vec![0; x.len() / 2];
            tern_shaders::kernels::half::pack(&p, 1, x, &mut expected);
            for isa in Isa::available() {
                prop_assert_eq!(&packed(isa, format.into(), x), &expected, "{}", isa);
            }
        }
    }
}
