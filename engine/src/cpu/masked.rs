//! Fast masks: a task's words stay in the first-level cache while they are encoded and masked.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::chacha::{BLOCK, WORDS_A_MASK};
use tern_shaders::kernels::masked::{EncodeMask, MaskWords, Sum, UnmaskDecode};
use tern_shaders::{Arg, ReferenceFn};

use super::aggregate::MAGIC;
use super::chacha::add_masks;
use super::isa::with_vectors;
use super::mixed::{apply, map, update};
use super::vector::inlined;

pub(super) static TABLE: super::Table = &[
    ("masked/encode_mask", encode_mask as ReferenceFn<f32>),
    ("masked/mask_words", mask_words),
    ("masked/sum", sum),
    ("masked/unmask_decode", unmask_decode),
];

/// Words a task takes.
const CHUNK: usize = 64 * BLOCK;

fn masks_of(masks: &[u32], r: usize, count: u32) -> &[u32] {
    let words = count as usize * WORDS_A_MASK;
    &masks[r * words..(r + 1) * words]
}

/// The first block of a task.
fn block_of(counter: u32, chunk: usize) -> u32 {
    counter.wrapping_add((chunk * CHUNK / BLOCK) as u32)
}

fn encode_mask(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &EncodeMask = bytemuck::from_bytes(p);
    let [x, masks, words] = args else { unreachable!("bindings were checked") };
    let n = p.n as usize;
    let (x, masks) = (x.real(), masks.word());
    let words = &mut words.word_mut()[..replicas * n];
    for (r, words) in words.chunks_mut(n).enumerate() {
        let (x, masks) = (&x[r * p.stride as usize..][..n], masks_of(masks, r, p.count));
        let chunks = words.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
        chunks.enumerate().for_each(|(chunk, (words, x))| {
            with_vectors!(s => {
                encode(s, words, x, p.fraction_bits, p.bound);
                add_masks(s, words, masks, block_of(p.counter, chunk));
                reduce(s, words, p.modulus_mask);
            });
        });
    }
}

/// words mod `modulus_mask + 1`
#[inline(always)]
fn reduce<S: Simd>(s: S, words: &mut [u32], modulus_mask: u32) {
    // The masks' sum is mod 2^32.
    if modulus_mask != u32::MAX {
        apply(
            s,
            words,
            #[inline(always)]
            |word: S::u32s| word & modulus_mask,
        );
    }
}

/// Fixed point, clipped. Exact in `f64`: a float times a power of two, clipped to an integer
/// below 2^31, and then rounded.
#[inline(always)]
fn encode<S: Simd>(s: S, words: &mut [u32], x: &[f32], fraction_bits: u32, bound: u32) {
    let (factor, bound) = (f64::powi(2.0, fraction_bits as i32), f64::from(bound));
    let round = inlined(
        #[inline(always)]
        |x: S::f64s| -> S::u64s { ((x * factor).max(-bound).min(bound) + MAGIC).bitcast() },
    );
    map(
        s,
        x,
        words,
        #[inline(always)]
        |x: S::f32s| {
            let (low, high) = x.widen();
            let words: S::u32s = round(low).narrow(round(high));
            // What is not finite has all bits of the exponent.
            let exponent = x.bitcast::<S::u32s>() & 0x7f80_0000;
            exponent.simd_eq(0x7f80_0000).select(S::u32s::splat(s, 0), words)
        },
    );
}

fn mask_words(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &MaskWords = bytemuck::from_bytes(p);
    let [masks, words] = args else { unreachable!("bindings were checked") };
    let n = p.n as usize;
    let words = &mut words.word_mut()[..replicas * n];
    for (r, words) in words.chunks_mut(n).enumerate() {
        let masks = masks_of(masks.word(), r, p.count);
        words.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, words)| {
            with_vectors!(s => {
                add_masks(s, words, masks, block_of(p.counter, chunk));
                reduce(s, words, p.modulus_mask);
            });
        });
    }
}

fn sum(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Sum = bytemuck::from_bytes(p);
    let [words, total] = args else { unreachable!("bindings were checked") };
    let (n, clients) = (p.n as usize, p.clients as usize);
    let words = words.word();
    let total = &mut total.word_mut()[..replicas * n];
    for (r, total) in total.chunks_mut(n).enumerate() {
        total.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, total)| {
            let clients = (r * clients..(r + 1) * clients).map(|c| &words[c * n + chunk * CHUNK..]);
            with_vectors!(s => add_clients(s, clients, total, p));
        });
    }
}

/// total (+)= Σ over clients of words, mod `modulus_mask + 1`.
#[inline(always)]
fn add_clients<'a, S: Simd>(
    s: S,
    clients: impl Iterator<Item = &'a [u32]>,
    total: &mut [u32],
    p: &Sum,
) {
    if p.accumulate == 0 {
        total.fill(0);
    }
    for words in clients {
        update(
            s,
            words,
            total,
            #[inline(always)]
            |word: S::u32s, total: S::u32s| total + word,
        );
    }
    reduce(s, total, p.modulus_mask);
}

fn unmask_decode(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &UnmaskDecode = bytemuck::from_bytes(p);
    let [words, masks, mean] = args else { unreachable!("bindings were checked") };
    let n = p.n as usize;
    let replicas = words.word()[..replicas * n].chunks(n).enumerate();
    for ((r, words), mean) in replicas.zip(mean.real_mut().chunks_mut(p.stride as usize)) {
        let masks = masks_of(masks.word(), r, p.count);
        let chunks = mean[..n].par_chunks_mut(CHUNK).zip(words.par_chunks(CHUNK));
        chunks.enumerate().for_each(|(chunk, (mean, words))| {
            let mut plain = [0; CHUNK];
            let plain = &mut plain[..words.len()];
            plain.copy_from_slice(words);
            with_vectors!(s => {
                add_masks(s, plain, masks, block_of(p.counter, chunk));
                decode(s, plain, p, mean);
            });
        });
    }
}

/// mean = weight · signed(words mod `modulus_mask + 1`)
#[inline(always)]
fn decode<S: Simd>(s: S, words: &[u32], p: &UnmaskDecode, mean: &mut [f32]) {
    // Up to the sign bit and back.
    let unused = p.modulus_mask.leading_zeros();
    map(
        s,
        words,
        mean,
        #[inline(always)]
        |words: S::u32s| {
            let signed: S::i32s = words.bitcast::<S::i32s>() << unused >> unused;
            signed.to_float::<S::f32s>() * p.weight
        },
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tern_shaders::kernels::fixed::{fixed64, signed_word};

    use super::super::isa::Isa;
    use super::*;

    proptest! {
        #[test]
        fn any_float_encodes_as_the_reference_does(
            bits in proptest::collection::vec(any::<u32>(), 1..40),
            fraction_bits in 0u32..=62,
            bound in 0u32..1 << 31,
        ) {
            let x: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            let clip = i64::from(bound);
            let expected: Vec<u32> = x
                .iter()
                .map(|x| fixed64(*x, 1, fraction_bits).clamp(-clip, clip) as u32)
                .collect();
            for isa in Isa::available() {
                let mut words = vec![9; x.len()];
                with_vectors!(isa.level().unwrap(), s => {
                    encode(s, &mut words, &x, fraction_bits, bound)
                });
                prop_assert_eq!(&words, &expected, "{}", isa);
            }
        }

        #[test]
        fn any_word_decodes_as_the_reference_does(
            words in proptest::collection::vec(any::<u32>(), 1..40), bits in 2u32..=32,
        ) {
            let modulus_mask = u32::MAX >> (32 - bits);
            let p = UnmaskDecode { modulus_mask, weight: 0.3, ..UnmaskDecode::default() };
            for isa in Isa::available() {
                let mut mean = vec![9.0; words.len()];
                with_vectors!(isa.level().unwrap(), s => decode(s, &words, &p, &mut mean));
                for (mean, word) in mean.iter().zip(&words) {
                    prop_assert_eq!(*mean, p.weight * signed_word(*word, modulus_mask), "{}", isa);
                }
            }
        }

        #[test]
        fn any_number_of_clients_adds_as_the_reference_does(
            x: [u32; 21], clients in 0usize..4, accumulate in 0u32..2, bits in 2u32..=32,
        ) {
            let p = Sum {
                n: 21,
                clients: clients as u32,
                modulus_mask: u32::MAX >> (32 - bits),
                accumulate,
            };
            let words: Vec<u32> = (0..clients as u32).flat_map(|c| x.map(|x| x ^ c << 30)).collect();
            let mut expected = x;
            tern_shaders::kernels::masked::sum::<f32>(&p, 1, &words, &mut expected);
            for isa in Isa::available() {
                let mut total = x;
                let clients = words.chunks(21);
                with_vectors!(isa.level().unwrap(), s => add_clients(s, clients, &mut total, &p));
                prop_assert_eq!(total, expected, "{}", isa);
            }
        }
    }
}
