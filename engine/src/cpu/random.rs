//! The random stream for many keys at once.

use fearless_simd::Simd;

/// [`tern_shaders::kernels::random::pcg4d`] of a key a lane.
#[inline(always)]
pub(super) fn pcg4d<S: Simd>(mut key: [S::u32s; 4]) -> [S::u32s; 4] {
    for word in &mut key {
        *word = *word * 1_664_525 + 1_013_904_223;
    }
    mix::<S>(&mut key);
    for word in &mut key {
        *word ^= *word >> 16;
    }
    mix::<S>(&mut key);
    key
}

#[inline(always)]
fn mix<S: Simd>(key: &mut [S::u32s; 4]) {
    key[0] += key[1] * key[3];
    key[1] += key[2] * key[0];
    key[2] += key[0] * key[1];
    key[3] += key[1] * key[2];
}

#[cfg(test)]
mod tests {
    use fearless_simd::prelude::*;
    use proptest::prelude::*;

    use super::super::isa::{Isa, with_vectors};
    use super::super::vector::{MAX_LANES, load};
    use super::*;

    #[inline(always)]
    fn hashes<S: Simd>(s: S, keys: [[u32; MAX_LANES]; 4]) -> Vec<[u32; 4]> {
        let [x, y, z, w] = &keys;
        let hashes: [S::u32s; 4] = pcg4d::<S>([load(s, x), load(s, y), load(s, z), load(s, w)]);
        (0..S::u32s::LEN).map(|lane| hashes.map(|word| word[lane])).collect()
    }

    proptest! {
        #[test]
        fn side_by_side_is_one_by_one(keys: [[u32; MAX_LANES]; 4]) {
            for isa in Isa::available() {
                let hashes = with_vectors!(isa.level().unwrap(), s => hashes(s, keys));
                for (lane, hash) in hashes.into_iter().enumerate() {
                    let one = tern_shaders::kernels::random::pcg4d(keys.map(|word| word[lane]));
                    prop_assert_eq!(hash, one, "{}", isa);
                }
            }
        }
    }
}
