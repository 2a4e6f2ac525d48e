//! Masks' streams (ChaCha20) in vectors: as many blocks side by side as a vector has lanes, each
//! of a block's sixteen words a vector over the blocks. The streams of all masks are summed in
//! that order, and brought into the order of the words once for all of them.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::chacha::{BLOCK, Mask, WORDS_A_MASK};

use super::mixed::{get, in_turn, set};
use super::vector::lanes;

/// "expand 32-byte k"
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// One word of the state of some blocks a vector.
type State<S> = [<S as Simd>::u32s; BLOCK];

/// words += Σ over masks of sign · stream from block `counter` on, mod 2^32. Shapes: `words`
/// `[n]`, `masks` `[count, 12]`.
#[inline(always)]
pub(super) fn add_masks<S: Simd>(s: S, words: &mut [u32], masks: &[u32], mut counter: u32) {
    if masks.is_empty() {
        return;
    }
    let blocks = lanes::<S>();
    let by = Rotations::new(s);
    for words in words.chunks_mut(blocks * BLOCK) {
        let streams = in_turn::<S, _, BLOCK>(sum(s, by, masks, counter));
        for (words, streams) in words.chunks_mut(blocks).zip(streams) {
            let n = words.len();
            let sum = get::<S, S::u32s>(s, words, n) + streams;
            set(words, n, sum);
        }
        counter = counter.wrapping_add(blocks as u32);
    }
}

/// Σ over masks of sign · stream, of the blocks from `counter` on.
#[inline(always)]
fn sum<S: Simd>(s: S, by: Rotations<S>, masks: &[u32], counter: u32) -> State<S> {
    let counters = S::u32s::from_fn(
        s,
        #[inline(always)]
        |lane| lane as u32,
    ) + counter;
    let mut sums = [S::u32s::splat(s, 0); BLOCK];
    for mask in masks.chunks_exact(WORDS_A_MASK) {
        let mask = Mask::of(mask);
        let stream = blocks(s, by, &mask, counters);
        for (sum, stream) in sums.iter_mut().zip(stream) {
            *sum += stream * mask.sign;
        }
    }
    sums
}

/// Blocks of the key stream, the number of each in a lane of `counters` (RFC 8439, section 2.3).
#[inline(always)]
fn blocks<S: Simd>(s: S, by: Rotations<S>, mask: &Mask, counters: S::u32s) -> State<S> {
    let mut first = [counters; BLOCK];
    for i in 0..4 {
        first[i] = S::u32s::splat(s, CONSTANTS[i]);
    }
    for i in 0..8 {
        first[4 + i] = S::u32s::splat(s, mask.key[i]);
    }
    for i in 0..3 {
        first[13 + i] = S::u32s::splat(s, mask.nonce[i]);
    }
    let mut x = first;
    for _ in 0..10 {
        quarter_round(&mut x, by, [0, 4, 8, 12]);
        quarter_round(&mut x, by, [1, 5, 9, 13]);
        quarter_round(&mut x, by, [2, 6, 10, 14]);
        quarter_round(&mut x, by, [3, 7, 11, 15]);
        quarter_round(&mut x, by, [0, 5, 10, 15]);
        quarter_round(&mut x, by, [1, 6, 11, 12]);
        quarter_round(&mut x, by, [2, 7, 8, 13]);
        quarter_round(&mut x, by, [3, 4, 9, 14]);
    }
    for (x, first) in x.iter_mut().zip(first) {
        *x += first;
    }
    x
}

#[inline(always)]
fn quarter_round<S: Simd>(x: &mut State<S>, by: Rotations<S>, [a, b, c, d]: [usize; 4]) {
    x[a] += x[b];
    x[d] = by.bytes::<2>(x[d] ^ x[a]);
    x[c] += x[d];
    x[b] = by.bits(x[b] ^ x[c], 12);
    x[a] += x[b];
    x[d] = by.bytes::<1>(x[d] ^ x[a]);
    x[c] += x[d];
    x[b] = by.bits(x[b] ^ x[c], 7);
}

/// Rotations of words to the left.
#[derive(Clone, Copy)]
struct Rotations<S: Simd> {
    /// Where each byte comes from, by one byte and by two.
    from: [S::u8s; 2],
}

impl<S: Simd> Rotations<S> {
    #[inline(always)]
    fn new(s: S) -> Self {
        let lane = S::u32s::from_fn(
            s,
            #[inline(always)]
            |lane| lane as u32,
        );
        // Places within 16 bytes, those of a word's first byte lowest.
        let word = (lane & 3) * 0x0404_0404;
        let from = [(word + 0x0201_0003).bitcast(), (word + 0x0100_0302).bitcast()];
        // A compiler that knows the places moves the shuffles before the xor: then there are two.
        Rotations { from: std::hint::black_box(from) }
    }

    #[inline(always)]
    fn bytes<const N: usize>(self, x: S::u32s) -> S::u32s {
        // AVX2 has no rotations, but shuffles bytes.
        match lanes::<S>() {
            8 => x.swizzle_dyn_within_blocks(self.from[N - 1]),
            _ => self.bits(x, 8 * N as u32),
        }
    }

    #[inline(always)]
    fn bits(self, x: S::u32s, bits: u32) -> S::u32s {
        (x << bits) | (x >> (32 - bits))
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20;
    use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
    use proptest::prelude::*;
    use tern_shaders::kernels::chacha::add_block;

    use super::super::isa::{Isa, with_vectors};
    use super::*;

    fn add(isa: Isa, words: &mut [u32], masks: &[Mask], counter: u32) {
        let masks = bytemuck::cast_slice(masks);
        with_vectors!(isa.level().unwrap(), s => add_masks(s, words, masks, counter));
    }

    #[test]
    fn rfc_8439_section_2_3_2() {
        let key: [u8; 32] = std::array::from_fn(|i| i as u8);
        let nonce = [0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0];
        let expected: [u32; BLOCK] = [
            0xe4e7_f110,
            0x1559_3bd1,
            0x1fdd_0f50,
            0xc471_20a3,
            0xc7f4_d1c7,
            0x0368_c033,
            0x9aaa_2204,
            0x4e6c_d4c3,
            0x4664_82d2,
            0x09aa_9f07,
            0x05d7_c214,
            0xa202_8bd9,
            0xd19c_12b5,
            0xb94e_16de,
            0xe883_d0cb,
            0x4e3c_50a2,
        ];
        for isa in Isa::available() {
            let mut words = [0; BLOCK];
            add(isa, &mut words, &[Mask::new(&key, &nonce)], 1);
            assert_eq!(words, expected, "{isa}");
        }
    }

    #[test]
    fn equals_the_crates_stream() {
        let (key, nonce) = ([7; 32], [8; 12]);
        for isa in Isa::available() {
            let mut words = vec![0; 40 * BLOCK];
            add(isa, &mut words, &[Mask::new(&key, &nonce)], 1 << 20);
            let mut stream = vec![0u8; 4 * words.len()];
            let mut cipher = ChaCha20::new(&key.into(), &nonce.into());
            cipher.seek((1u64 << 20) * 4 * BLOCK as u64);
            cipher.apply_keystream(&mut stream);
            assert_eq!(stream, bytemuck::cast_slice::<u32, u8>(&words), "{isa}");
        }
    }

    proptest! {
        #[test]
        fn any_masks_length_and_counter_equal_the_reference(
            keys: [([u8; 32], [u8; 12], bool); 3],
            count in 0usize..=3,
            length in 0usize..600,
            counter in prop_oneof![any::<u32>(), u32::MAX - 40..=u32::MAX],
        ) {
            let masks = keys.map(|(key, nonce, negated)| {
                let mask = Mask::new(&key, &nonce);
                if negated { mask.negated() } else { mask }
            });
            let words: Vec<u32> = (0..length as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
            let mut expected = words.clone();
            for (i, block) in expected.chunks_mut(BLOCK).enumerate() {
                for mask in &masks[..count] {
                    add_block(block, mask, counter.wrapping_add(i as u32));
                }
            }
            for isa in Isa::available() {
                let mut words = words.clone();
                add(isa, &mut words, &masks[..count], counter);
                prop_assert!(words == expected, "{}", isa);
            }
        }
    }
}
