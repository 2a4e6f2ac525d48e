//! Fast masks: key streams from the `chacha20` crate, which uses the processor's vectors.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use rayon::prelude::*;
use tern_shaders::cpu::chacha::{BLOCK, Mask, WORDS_A_MASK, add_block};
use tern_shaders::cpu::fixed::signed_word;
use tern_shaders::cpu::masked::{EncodeMask, MaskWords, Sum, UnmaskDecode};
use tern_shaders::{Arg, TwinFn};

use super::fold::MAGIC;

pub(super) static TABLE: super::Table = &[
    ("masked/encode_mask", encode_mask as TwinFn<f32>),
    ("masked/mask_words", mask_words),
    ("masked/sum", sum),
    ("masked/unmask_decode", unmask_decode),
];

/// Words a task takes: its words and a stream for them stay in the first-level cache.
const CHUNK: usize = 64 * BLOCK;

/// Adds the streams of a table of masks from block `counter` on, mod 2^32. At most [`CHUNK`]
/// words.
fn add_masks(words: &mut [u32], masks: &[u32], counter: u32) {
    for mask in masks.chunks_exact(WORDS_A_MASK).map(Mask::of) {
        // The cipher ends where its counter does; the kernels go on at zero.
        if counter.checked_add((CHUNK / BLOCK) as u32).is_none() {
            for (i, block) in words.chunks_mut(BLOCK).enumerate() {
                add_block(block, &mask, counter.wrapping_add(i as u32));
            }
            continue;
        }
        let key: [u8; 32] = bytemuck::cast(mask.key.map(u32::to_le_bytes));
        let nonce: [u8; 12] = bytemuck::cast(mask.nonce.map(u32::to_le_bytes));
        let mut cipher = ChaCha20::new(&key.into(), &nonce.into());
        cipher.seek(u64::from(counter) * 4 * BLOCK as u64);
        let mut stream = [0u8; 4 * CHUNK];
        let stream = &mut stream[..4 * words.len()];
        cipher.apply_keystream(stream);
        for (word, bytes) in words.iter_mut().zip(stream.chunks_exact(4)) {
            let key = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            *word = word.wrapping_add(mask.sign.wrapping_mul(key));
        }
    }
}

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
            encode(words, x, p.fraction_bits, p.bound);
            add_masks(words, masks, block_of(p.counter, chunk));
            words.iter_mut().for_each(|word| *word &= p.modulus_mask);
        });
    }
}

/// Fixed point, clipped. Exact in `f64`: a float times a power of two, clipped to an integer
/// below 2^31, and then rounded.
fn encode(words: &mut [u32], x: &[f32], fraction_bits: u32, bound: u32) {
    let (factor, bound) = (f64::powi(2.0, fraction_bits as i32), f64::from(bound));
    for (word, x) in words.iter_mut().zip(x) {
        let scaled = (f64::from(*x) * factor).max(-bound).min(bound);
        let finite = x.to_bits() & 0x7f80_0000 != 0x7f80_0000;
        *word = if finite { (scaled + MAGIC).to_bits() as u32 } else { 0 };
    }
}

fn mask_words(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &MaskWords = bytemuck::from_bytes(p);
    let [masks, words] = args else { unreachable!("bindings were checked") };
    let n = p.n as usize;
    let words = &mut words.word_mut()[..replicas * n];
    for (r, words) in words.chunks_mut(n).enumerate() {
        let masks = masks_of(masks.word(), r, p.count);
        words.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, words)| {
            add_masks(words, masks, block_of(p.counter, chunk));
            words.iter_mut().for_each(|word| *word &= p.modulus_mask);
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
            if p.accumulate == 0 {
                total.fill(0);
            }
            for c in r * clients..(r + 1) * clients {
                let words = &words[c * n + chunk * CHUNK..][..total.len()];
                for (total, word) in total.iter_mut().zip(words) {
                    *total = total.wrapping_add(*word);
                }
            }
            total.iter_mut().for_each(|total| *total &= p.modulus_mask);
        });
    }
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
            add_masks(plain, masks, block_of(p.counter, chunk));
            for (mean, word) in mean.iter_mut().zip(plain) {
                *mean = p.weight * signed_word(*word, p.modulus_mask);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tern_shaders::cpu::fixed::fixed64;

    proptest! {
        #[test]
        fn any_float_encodes_as_the_twin_does(
            bits: u32, fraction_bits in 0u32..=62, bound in 0u32..1 << 31,
        ) {
            let x = f32::from_bits(bits);
            let mut word = [9];
            encode(&mut word, &[x], fraction_bits, bound);
            let bound = i64::from(bound);
            prop_assert_eq!(word[0], fixed64(x, 1, fraction_bits).clamp(-bound, bound) as u32);
        }
    }

    #[test]
    fn the_counter_wraps_as_the_twin_does() {
        let mask = Mask::new(&[3; 32], &[4; 12]);
        for counter in [0, 5, u32::MAX - 64, u32::MAX - 1] {
            let mut words: Vec<u32> = (0..CHUNK as u32).collect();
            let mut expected = words.clone();
            add_masks(&mut words, bytemuck::cast_slice(&[mask, mask.negated(), mask]), counter);
            for (i, block) in expected.chunks_mut(BLOCK).enumerate() {
                add_block(block, &mask, counter.wrapping_add(i as u32));
            }
            assert_eq!(words, expected, "{counter}");
        }
    }
}
