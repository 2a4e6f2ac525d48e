//! Vectors of which the last elements lie in no slice: ends of rows, and rows that are short.
//!
//! They are as frequent as whole vectors where rows are short, and an array on the stack, filled
//! by a call of `memcpy` and read as a vector, takes longer than all the rest of a row.

use fearless_simd::Simd;
use fearless_simd::prelude::*;

use super::vector::{MAX_LANES, store};

/// The first `n` elements, at most a vector, then `filler`.
#[inline(always)]
pub(super) fn load_part<S: Simd, V: SimdBase<S>>(
    s: S,
    x: &[V::Element],
    n: usize,
    filler: V::Element,
) -> V {
    let x = &x[..n];
    let mut lanes = [filler; MAX_LANES];
    #[cfg(target_arch = "x86_64")]
    if x86::load::<S, V>(x, &mut lanes) {
        return V::from_slice(s, &lanes[..V::LEN]);
    }
    lanes[..n].copy_from_slice(x);
    V::from_slice(s, &lanes[..V::LEN])
}

/// Writes the first `n` elements, at most a vector.
#[inline(always)]
pub(super) fn store_part<S: Simd, V: SimdBase<S>>(y: &mut [V::Element], n: usize, vector: V) {
    let y = &mut y[..n];
    #[cfg(target_arch = "x86_64")]
    if x86::store::<S, V>(y, vector) {
        return;
    }
    if n == V::LEN {
        return store(y, vector);
    }
    // Pieces of fixed sizes are moved without a call.
    let lanes = vector.as_slice();
    let mut at = 0;
    macro_rules! piece {
        ($size:literal) => {
            if n & $size != 0 {
                y[at..at + $size].copy_from_slice(&lanes[at..at + $size]);
                at += $size;
            }
        };
    }
    piece!(8);
    piece!(4);
    piece!(2);
    if at < n {
        y[at] = lanes[at];
    }
}

/// By masks, where the instruction set has them. Both say whether they did it.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_maskload_ps, _mm256_storeu_ps, _mm512_loadu_ps, _mm512_mask_loadu_ps,
        _mm512_mask_storeu_ps, _mm512_storeu_ps,
    };

    use super::{MAX_LANES, Simd, SimdBase};
    use crate::cpu::vector::lanes;

    /// Lanes that the instruction set has, of elements as wide as a float; of others, none.
    #[inline(always)]
    fn native<S: Simd, V: SimdBase<S>>() -> usize {
        if size_of::<V::Element>() == 4 { lanes::<S>() } else { 0 }
    }

    /// Bits of the first `n` lanes.
    #[inline(always)]
    fn first(n: usize) -> u16 {
        ((1u32 << n) - 1) as u16
    }

    /// Puts `x` over the first lanes.
    #[inline(always)]
    pub(super) fn load<S: Simd, V: SimdBase<S>>(
        x: &[V::Element],
        lanes: &mut [V::Element; MAX_LANES],
    ) -> bool {
        let n = x.len();
        assert!(n <= V::LEN);
        let (from, to) = (x.as_ptr().cast::<f32>(), lanes.as_mut_ptr().cast::<f32>());
        if native::<S, V>() == 16 && V::LEN == 16 {
            // SAFETY: the native vectors have 16 lanes, so that the processor has AVX-512. The
            // mask leaves what lies within `x`; sixteen elements of four bytes lie at `to`.
            unsafe {
                let all = _mm512_mask_loadu_ps(_mm512_loadu_ps(to), first(n), from);
                _mm512_storeu_ps(to, all);
            }
            return true;
        }
        if native::<S, V>() >= 8 && V::LEN == 8 {
            const MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
            let mask = MASKS[8 - n..].as_ptr().cast::<__m256i>();
            // SAFETY: the native vectors have 8 lanes or more, so that the processor has AVX.
            // Eight numbers lie from 8 - n on in the masks; the mask leaves what lies within
            // `x`; sixteen elements of four bytes lie at `to`.
            unsafe {
                let mask = _mm256_loadu_si256(mask);
                let x = _mm256_maskload_ps(from, mask);
                let mask = _mm256_castsi256_ps(mask);
                _mm256_storeu_ps(to, _mm256_blendv_ps(_mm256_loadu_ps(to), x, mask));
            }
            return true;
        }
        false
    }

    /// Writes the first lanes to `y`.
    #[inline(always)]
    pub(super) fn store<S: Simd, V: SimdBase<S>>(y: &mut [V::Element], vector: V) -> bool {
        let n = y.len();
        assert!(n <= V::LEN);
        if native::<S, V>() == 16 && V::LEN == 16 {
            let lanes = vector.as_slice().as_ptr().cast::<f32>();
            // SAFETY: the native vectors have 16 lanes, so that the processor has AVX-512. The
            // vector has 16 elements of four bytes; the mask leaves what lies within `y`.
            unsafe {
                _mm512_mask_storeu_ps(y.as_mut_ptr().cast(), first(n), _mm512_loadu_ps(lanes));
            }
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::cpu::isa::with_vectors;

    #[inline(always)]
    fn round<S: Simd>(s: S, n: usize) -> (Vec<f32>, Vec<f32>) {
        // Just as long as what is read and written: what lies behind is another's.
        let x: Vec<f32> = (0..n).map(|i| i as f32 + 1.0).collect();
        let vector: S::f32s = load_part(s, &x, n, -1.0);
        let mut y = vec![0.0; n];
        store_part(&mut y, n, vector);
        let eight: fearless_simd::f32x8<S> = load_part(s, &x, n.min(8), -2.0);
        store_part(&mut y[..n.min(8)], n.min(8), eight + 0.0);
        (vector.as_slice().to_vec(), y)
    }

    #[test]
    fn parts_are_padded_and_written_back_on_every_instruction_set() {
        for isa in Isa::available() {
            let vectors = isa.level().unwrap();
            for n in 0..=vectors.lanes() {
                let (vector, y) = with_vectors!(vectors, s => round(s, n));
                let expected = |i: usize| if i < n { i as f32 + 1.0 } else { -1.0 };
                assert!(vector.iter().enumerate().all(|(i, x)| *x == expected(i)), "{isa:?} {n}");
                assert!(y.iter().enumerate().all(|(i, y)| *y == expected(i)), "{isa:?} {n}");
            }
        }
    }
}
