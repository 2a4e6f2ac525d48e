//! Masks on the processor, without an engine's device.
//!
//! A block of ChaCha20 is sixteen words; here as many blocks as a vector has lanes are computed
//! side by side, one word of all of them a vector. They are summed in that order and brought
//! into the vector's order once for all masks.

use rayon::prelude::*;
use tern_shaders::kernels::chacha::{BLOCK, Mask};
use zeroize::{Zeroize, Zeroizing};

/// Words of a task.
const TASK: usize = 32 * MOST;
/// Words that one pass of the widest vectors computes.
const MOST: usize = 16 * BLOCK;

/// Masks of one vector. Their keys are wiped when this is dropped.
#[derive(Default)]
pub struct Masks(Vec<Mask>);

impl Masks {
    pub(super) fn push(&mut self, mask: Mask) {
        // A vector that grows leaves a copy behind: take a new one and wipe the old.
        if self.0.len() == self.0.capacity() {
            let mut grown = Vec::with_capacity(2 * self.0.len().max(32));
            grown.extend_from_slice(&self.0);
            wipe(&mut std::mem::replace(&mut self.0, grown));
        }
        self.0.push(mask);
    }

    /// Adds all of them to `words` from its first word on, mod 2^32, on the threads of the
    /// current rayon pool. The words are those that the engine's `kernels::masked::Masker` gives.
    pub fn add_to(&self, words: &mut [u32]) {
        self.add_from(0, words);
    }

    /// Likewise to words of which the first is the vector's word `first`.
    ///
    /// # Panics
    /// Unless `first` is a multiple of 16, where a block begins.
    pub fn add_from(&self, first: usize, words: &mut [u32]) {
        assert!(first.is_multiple_of(BLOCK), "word {first} begins no block of {BLOCK}");
        let add = backend();
        words.par_chunks_mut(TASK).enumerate().for_each(|(task, words)| {
            let mut counter = ((first + task * TASK) / BLOCK) as u32;
            for words in words.chunks_mut(MOST) {
                add(words, &self.0, counter);
                counter = counter.wrapping_add((MOST / BLOCK) as u32);
            }
        });
    }
}

fn wipe(masks: &mut [Mask]) {
    bytemuck::cast_slice_mut::<Mask, u32>(masks).zeroize();
}

impl std::ops::Deref for Masks {
    type Target = [Mask];

    fn deref(&self) -> &[Mask] {
        &self.0
    }
}

impl FromIterator<Mask> for Masks {
    fn from_iter<T: IntoIterator<Item = Mask>>(masks: T) -> Self {
        let mut all = Masks::default();
        masks.into_iter().for_each(|mask| all.push(mask));
        all
    }
}

impl Extend<Mask> for Masks {
    fn extend<T: IntoIterator<Item = Mask>>(&mut self, masks: T) {
        masks.into_iter().for_each(|mask| self.push(mask));
    }
}

impl Drop for Masks {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl std::fmt::Debug for Masks {
    /// Keeps the keys out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} masks", self.0.len())
    }
}

/// Adds masks to up to [`MOST`] words, the first of which is the first of block `counter`.
type Add = fn(&mut [u32], &[Mask], u32);

/// What this processor adds masks with.
fn backend() -> Add {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return |words, masks, counter| {
                // SAFETY: the processor has it.
                unsafe { x86::avx512(words, masks, counter) }
            };
        }
        if is_x86_feature_detected!("avx2") {
            return |words, masks, counter| {
                // SAFETY: the processor has it.
                unsafe { x86::avx2(words, masks, counter) }
            };
        }
    }
    by_crate
}

/// By the `chacha20` crate, which has vectors for other processors.
fn by_crate(words: &mut [u32], masks: &[Mask], counter: u32) {
    use chacha20::ChaCha20;
    use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

    for mask in masks {
        let mut stream = [0u32; MOST];
        let stream = &mut stream[..words.len()];
        let key: Zeroizing<[u8; 32]> =
            Zeroizing::new(bytemuck::cast(mask.key.map(u32::to_le_bytes)));
        let nonce: [u8; 12] = bytemuck::cast(mask.nonce.map(u32::to_le_bytes));
        let mut cipher = ChaCha20::new((&*key).into(), &nonce.into());
        cipher.seek(u64::from(counter) * 4 * BLOCK as u64);
        cipher.apply_keystream(bytemuck::cast_slice_mut(stream));
        for (word, stream) in words.iter_mut().zip(stream) {
            *word = word.wrapping_add(mask.sign.wrapping_mul(u32::from_le(*stream)));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use tern_shaders::kernels::chacha::{BLOCK, Mask};

    /// "expand 32-byte k"
    const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

    macro_rules! rotate_left_256 {
        ($x:expr, 16) => {
            _mm256_shuffle_epi8(
                $x,
                _mm256_broadcastsi128_si256(_mm_setr_epi8(
                    2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13,
                )),
            )
        };
        ($x:expr, 8) => {
            _mm256_shuffle_epi8(
                $x,
                _mm256_broadcastsi128_si256(_mm_setr_epi8(
                    3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14,
                )),
            )
        };
        ($x:expr, $bits:literal) => {
            _mm256_or_si256(_mm256_slli_epi32::<$bits>($x), _mm256_srli_epi32::<{ 32 - $bits }>($x))
        };
    }

    macro_rules! rotate_left_512 {
        ($x:expr, $bits:literal) => {
            _mm512_rol_epi32::<$bits>($x)
        };
    }

    macro_rules! wide {
        ($name:ident, $feature:literal, $vector:ty, $lanes:literal, $lane:expr,
         $set:ident, $add:ident, $sub:ident, $xor:ident, $rotate:ident) => {
            /// Adds masks to words, the first of which is the first of block `counter`.
            #[target_feature(enable = $feature)]
            pub(super) fn $name(words: &mut [u32], masks: &[Mask], mut counter: u32) {
                for words in words.chunks_mut($lanes * BLOCK) {
                    let counters = $add($set(counter as i32), $lane);
                    let mut sums = [$set(0); BLOCK];
                    for mask in masks {
                        let mut first = [$set(0); BLOCK];
                        for (vector, word) in first.iter_mut().zip(CONSTANTS) {
                            *vector = $set(word as i32);
                        }
                        for (vector, word) in first[4..].iter_mut().zip(mask.key) {
                            *vector = $set(word as i32);
                        }
                        first[12] = counters;
                        for (vector, word) in first[13..].iter_mut().zip(mask.nonce) {
                            *vector = $set(word as i32);
                        }
                        let mut s = first;
                        macro_rules! quarter_round {
                            ($a:literal, $b:literal, $c:literal, $d:literal) => {
                                s[$a] = $add(s[$a], s[$b]);
                                s[$d] = $rotate!($xor(s[$d], s[$a]), 16);
                                s[$c] = $add(s[$c], s[$d]);
                                s[$b] = $rotate!($xor(s[$b], s[$c]), 12);
                                s[$a] = $add(s[$a], s[$b]);
                                s[$d] = $rotate!($xor(s[$d], s[$a]), 8);
                                s[$c] = $add(s[$c], s[$d]);
                                s[$b] = $rotate!($xor(s[$b], s[$c]), 7);
                            };
                        }
                        for _ in 0..10 {
                            quarter_round!(0, 4, 8, 12);
                            quarter_round!(1, 5, 9, 13);
                            quarter_round!(2, 6, 10, 14);
                            quarter_round!(3, 7, 11, 15);
                            quarter_round!(0, 5, 10, 15);
                            quarter_round!(1, 6, 11, 12);
                            quarter_round!(2, 7, 8, 13);
                            quarter_round!(3, 4, 9, 14);
                        }
                        // The sign is 1 or −1.
                        if mask.sign == 1 {
                            for i in 0..BLOCK {
                                sums[i] = $add(sums[i], $add(s[i], first[i]));
                            }
                        } else {
                            for i in 0..BLOCK {
                                sums[i] = $sub(sums[i], $add(s[i], first[i]));
                            }
                        }
                    }
                    // SAFETY: vectors of the same size as their lanes, of which any bits are valid.
                    let sums: [[u32; $lanes]; BLOCK] = unsafe { std::mem::transmute(sums) };
                    for (lane, block) in words.chunks_mut(BLOCK).enumerate() {
                        for (word, sums) in block.iter_mut().zip(&sums) {
                            *word = word.wrapping_add(sums[lane]);
                        }
                    }
                    counter = counter.wrapping_add($lanes);
                }
            }
        };
    }

    wide!(
        avx2,
        "avx2",
        __m256i,
        8,
        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
        _mm256_set1_epi32,
        _mm256_add_epi32,
        _mm256_sub_epi32,
        _mm256_xor_si256,
        rotate_left_256
    );
    wide!(
        avx512,
        "avx512f",
        __m512i,
        16,
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32,
        _mm512_add_epi32,
        _mm512_sub_epi32,
        _mm512_xor_si512,
        rotate_left_512
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tern_shaders::kernels::chacha::add_block;
    use tern_shaders::kernels::masked::{MaskWords, mask_words};

    /// By the plain code that the kernels are held against.
    fn plainly(words: &mut [u32], masks: &[Mask], counter: u32) {
        for (i, block) in words.chunks_mut(BLOCK).enumerate() {
            for mask in masks {
                add_block(block, mask, counter.wrapping_add(i as u32));
            }
        }
    }

    fn backends() -> Vec<(&'static str, Add)> {
        let mut backends: Vec<(&str, Add)> = vec![("by crate", by_crate)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has it.
                backends.push(("avx2", |w, m, c| unsafe { x86::avx2(w, m, c) }));
            }
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has it.
                backends.push(("avx512", |w, m, c| unsafe { x86::avx512(w, m, c) }));
            }
        }
        backends
    }

    fn masks(count: u8) -> Masks {
        let mask = |i: u8| {
            let mask = Mask::new(&[i; 32], &[i; 12]);
            if i.is_multiple_of(2) { mask } else { mask.negated() }
        };
        (0..count).map(mask).collect()
    }

    #[test]
    fn equals_the_kernels_reference() {
        let masks = masks(70);
        let n = 3 * TASK + 5 * BLOCK;
        let mut words: Vec<u32> = (0..n as u32).collect();
        let mut expected = words.clone();
        masks.add_to(&mut words);
        let p = MaskWords { n: n as u32, count: 70, counter: 0, modulus_mask: u32::MAX };
        mask_words::<f32>(&p, 1, bytemuck::cast_slice(&masks), &mut expected);
        assert!(words == expected);
    }

    #[test]
    fn a_vectors_end_has_its_own_masks() {
        let masks = masks(5);
        let mut whole = vec![7; 2 * TASK + 37];
        let mut end = whole.split_off(TASK + 16);
        let mut expected = vec![7; 2 * TASK + 37];
        masks.add_to(&mut expected);
        masks.add_to(&mut whole);
        masks.add_from(TASK + 16, &mut end);
        whole.extend(end);
        assert!(whole == expected);
    }

    #[test]
    fn debug_tells_no_key() {
        assert_eq!(format!("{:?}", masks(3)), "3 masks");
    }

    proptest! {
        #[test]
        fn every_backend_equals_the_plain_code(
            keys in proptest::collection::vec(any::<([u8; 32], [u8; 12], bool)>(), 0..5),
            length in 0..=MOST,
            counter in 0..1u32 << 30,
        ) {
            let mask = |(key, nonce, negated): &([u8; 32], [u8; 12], bool)| {
                let mask = Mask::new(key, nonce);
                if *negated { mask.negated() } else { mask }
            };
            let masks: Vec<Mask> = keys.iter().map(mask).collect();
            let words: Vec<u32> = (0..length as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
            let mut expected = words.clone();
            plainly(&mut expected, &masks, counter);
            for (name, add) in backends() {
                let mut words = words.clone();
                add(&mut words, &masks, counter);
                prop_assert!(words == expected, "{}", name);
            }
        }
    }
}
