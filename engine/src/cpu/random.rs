//! The random stream for many keys at once.

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn side_by_side_is_one_by_one(keys: [[u32; 3]; 4]) {
            let hashes = super::pcg4d(keys);
            for k in 0..3 {
                let one = tern_shaders::cpu::random::pcg4d(keys.map(|word| word[k]));
                prop_assert_eq!(hashes.map(|word| word[k]), one);
            }
        }
    }
}
