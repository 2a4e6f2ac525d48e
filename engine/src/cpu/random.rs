//! The random stream for many keys at once.

use fearless_simd::Simd;

use super::vector::inlined;

/// [`tern_shaders::cpu::random::pcg4d`] of N keys, word by word side by side, so that the
/// compiler can keep the words of all keys in one vector. Always inlined, to be compiled for
/// the vectors of its caller.
#[inline(always)]
pub(super) fn pcg4d<const N: usize>(key: [[u32; N]; 4]) -> [[u32; N]; 4] {
    let [mut x, mut y, mut z, mut w] = key;
    for k in 0..N {
        for word in [&mut x, &mut y, &mut z, &mut w] {
            word[k] = word[k].wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        }
        for round in 0..2 {
            x[k] = x[k].wrapping_add(y[k].wrapping_mul(w[k]));
            y[k] = y[k].wrapping_add(z[k].wrapping_mul(x[k]));
            z[k] = z[k].wrapping_add(x[k].wrapping_mul(y[k]));
            w[k] = w[k].wrapping_add(y[k].wrapping_mul(z[k]));
            if round == 0 {
                for word in [&mut x, &mut y, &mut z, &mut w] {
                    word[k] ^= word[k] >> 16;
                }
            }
        }
    }
    [x, y, z, w]
}

/// [`tern_shaders::cpu::random::pcg4d`] of a vector of keys.
#[inline(always)]
pub(super) fn pcg4d_of_vectors<S: Simd>(key: [S::u32s; 4]) -> [S::u32s; 4] {
    let start = inlined(
        #[inline(always)]
        |k: S::u32s| k * 1_664_525 + 1_013_904_223,
    );
    let [x, y, z, w] = key;
    let (mut x, mut y, mut z, mut w) = (start(x), start(y), start(z), start(w));
    for round in 0..2 {
        x += y * w;
        y += z * x;
        z += x * y;
        w += y * z;
        if round == 0 {
            x ^= x >> 16;
            y ^= y >> 16;
            z ^= z >> 16;
            w ^= w >> 16;
        }
    }
    [x, y, z, w]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::isa::{Isa, with_vectors};
    use super::super::vector::{MOST_LANES, lanes, load, store};
    use super::*;

    /// Hashes of all keys, a vector at a time.
    #[inline(always)]
    fn hashes<S: Simd>(s: S, keys: [[u32; MOST_LANES]; 4], out: &mut [[u32; MOST_LANES]; 4]) {
        for at in (0..MOST_LANES).step_by(lanes::<S>()) {
            let [x, y, z, w] = &keys;
            let key = [load(s, &x[at..]), load(s, &y[at..]), load(s, &z[at..]), load(s, &w[at..])];
            for (out, word) in out.iter_mut().zip(pcg4d_of_vectors::<S>(key)) {
                store(&mut out[at..], word);
            }
        }
    }

    proptest! {
        #[test]
        fn side_by_side_is_one_by_one(keys: [[u32; 3]; 4]) {
            let hashes = pcg4d(keys);
            for k in 0..3 {
                let one = tern_shaders::cpu::random::pcg4d(keys.map(|word| word[k]));
                prop_assert_eq!(hashes.map(|word| word[k]), one);
            }
        }

        #[test]
        fn vectors_hold_the_hashes_of_their_keys(keys: [[u32; MOST_LANES]; 4]) {
            for isa in Isa::available() {
                let mut found = [[0; MOST_LANES]; 4];
                with_vectors!(isa.level().unwrap(), s => hashes(s, keys, &mut found));
                for k in 0..MOST_LANES {
                    let one = tern_shaders::cpu::random::pcg4d(keys.map(|word| word[k]));
                    prop_assert_eq!(found.map(|word| word[k]), one);
                }
            }
        }
    }
}
