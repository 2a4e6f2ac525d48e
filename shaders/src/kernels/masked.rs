//! Fixed-point encoding under ChaCha20 masks, for secure aggregation after Bonawitz et al.,
//! "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS 2017).
//!
//! A client uploads y = encode(x) + Σ ± PRG(key) mod 2^k; masks of pairs cancel in the sum.
//! Everything after the encoding is integer arithmetic, equal bit for bit on every device.
//!
//! Vectors are multiples of 16 words, a block of the stream; flat parameter vectors are.
//!
//! ```rust
//! use tern_shaders::kernels::chacha::Mask;
//! use tern_shaders::kernels::masked::*;
//!
//! // Two clients: one adds a mask, the other subtracts it.
//! let (n, modulus_mask) = (16, u32::MAX);
//! let mask = Mask::new(&[7; 32], &[1; 12]);
//! let masks = [mask, mask.negated()];
//! let p = EncodeMask {
//!     n, stride: n, count: 1, counter: 0, fraction_bits: 16, bound: 1 << 20, modulus_mask,
//! };
//! let x = [[0.5f32; 16], [-0.25; 16]].concat();
//! let (mut words, mut total) = ([0; 32], [0; 16]);
//! encode_mask(&p, 2, &x, bytemuck::cast_slice(&masks), &mut words);
//! sum::<f32>(&Sum { n, clients: 2, modulus_mask, accumulate: 0 }, 1, &words, &mut total);
//! // In the sum the mask has cancelled.
//! assert_eq!(total, [1 << 14; 16]); // 0.25 · 2¹⁶
//! ```

use crate::kernels::chacha::{BLOCK, Mask, WORDS_A_MASK, add_block};
use crate::kernels::fixed::{fixed64, signed_word};
use crate::{AnyKernel, Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`ENCODE_MASK`].
    EncodeMask {
        /// Elements a replica, a multiple of 16.
        n: u32,
        /// Words a replica takes in `x`, a multiple of 4.
        stride: u32,
        /// Masks a replica; at most 6,500.
        count: u32,
        /// Number of the first block of the streams.
        counter: u32,
        /// Bits after the binary point, at most 62.
        fraction_bits: u32,
        /// Largest magnitude of an encoded number, below 2^31; what is larger is clipped to it.
        bound: u32,
        /// The modulus, a power of two, less one.
        modulus_mask: u32,
    }
);

params!(
    /// Parameters of [`MASK_WORDS`].
    MaskWords {
        /// Words a replica, a multiple of 16.
        n: u32,
        /// Masks a replica; at most 6,500.
        count: u32,
        /// Number of the first block of the streams.
        counter: u32,
        /// The modulus, a power of two, less one.
        modulus_mask: u32,
    }
);

params!(
    /// Parameters of [`SUM`].
    Sum {
        /// Words a client, a multiple of 4.
        n: u32,
        /// Vectors to add a replica; at most 65,000.
        clients: u32,
        /// The modulus, a power of two, less one.
        modulus_mask: u32,
        /// 1 adds to `total`, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`UNMASK_DECODE`].
    UnmaskDecode {
        /// Words a replica, a multiple of 16.
        n: u32,
        /// Words a replica takes in `mean`, a multiple of 4.
        stride: u32,
        /// Masks a replica; at most 6,500. None decodes words that bear no mask.
        count: u32,
        /// Number of the first block of the streams.
        counter: u32,
        /// The modulus, a power of two, less one.
        modulus_mask: u32,
        /// What a decoded integer is multiplied by: 1 / (2^fraction_bits · clients) for the mean.
        weight: f32,
    }
);

/// Adds a replica's masks to its words, mod 2^32.
fn add_masks(words: &mut [u32], masks: &[u32], counter: u32) {
    for (i, block) in words.chunks_mut(BLOCK).enumerate() {
        for mask in masks.chunks_exact(WORDS_A_MASK) {
            add_block(block, &Mask::of(mask), counter.wrapping_add(i as u32));
        }
    }
}

/// The masks of replica `r`.
fn masks_of(masks: &[u32], r: usize, count: u32) -> &[u32] {
    let words = count as usize * WORDS_A_MASK;
    &masks[r * words..(r + 1) * words]
}

/// words = clip(round(x · 2^fraction_bits), ±bound) + masks, mod `modulus_mask + 1`; half goes
/// to even, and what is not finite encodes as 0. Shapes: `x` `[R, stride]`, `masks`
/// `[R, count, 12]`, `words` `[R, n]`.
pub fn encode_mask<F: Real>(
    p: &EncodeMask,
    replicas: usize,
    x: &[F],
    masks: &[u32],
    words: &mut [u32],
) {
    let (n, bound) = (p.n as usize, i64::from(p.bound));
    for r in 0..replicas {
        let words = &mut words[r * n..(r + 1) * n];
        for i in 0..n {
            let value = x[r * p.stride as usize + i].f32();
            words[i] = fixed64(value, 1, p.fraction_bits).clamp(-bound, bound) as u32;
        }
        add_masks(words, masks_of(masks, r, p.count), p.counter);
        for word in words {
            *word &= p.modulus_mask;
        }
    }
}

/// words += masks, mod `modulus_mask + 1`. Shapes: `masks` `[R, count, 12]`, `words` `[R, n]`.
/// Generic only to have a reference's signature.
pub fn mask_words<F: Real>(p: &MaskWords, replicas: usize, masks: &[u32], words: &mut [u32]) {
    let n = p.n as usize;
    for r in 0..replicas {
        let words = &mut words[r * n..(r + 1) * n];
        add_masks(words, masks_of(masks, r, p.count), p.counter);
        for word in words {
            *word &= p.modulus_mask;
        }
    }
}

/// total (+)= Σ over clients of words, mod `modulus_mask + 1`. Shapes: `words`
/// `[R, clients, n]`, `total` `[R, n]`. Generic only to have a reference's signature.
pub fn sum<F: Real>(p: &Sum, replicas: usize, words: &[u32], total: &mut [u32]) {
    let (n, clients) = (p.n as usize, p.clients as usize);
    for r in 0..replicas {
        for i in 0..n {
            let mut sum = if p.accumulate != 0 { total[r * n + i] } else { 0 };
            for c in r * clients..(r + 1) * clients {
                sum = sum.wrapping_add(words[c * n + i]);
            }
            total[r * n + i] = sum & p.modulus_mask;
        }
    }
}

/// mean = weight · signed(words + masks mod `modulus_mask + 1`). Shapes: `words` `[R, n]`,
/// `masks` `[R, count, 12]`, `mean` `[R, stride]`.
pub fn unmask_decode<F: Real>(
    p: &UnmaskDecode,
    replicas: usize,
    words: &[u32],
    masks: &[u32],
    mean: &mut [F],
) {
    let n = p.n as usize;
    for r in 0..replicas {
        let mut plain = words[r * n..(r + 1) * n].to_vec();
        add_masks(&mut plain, masks_of(masks, r, p.count), p.counter);
        for i in 0..n {
            let value = p.weight * signed_word(plain[i], p.modulus_mask);
            mean[r * p.stride as usize + i] = F::of(value);
        }
    }
}

/// Iterations of the loops over masks and, in each block of ChaCha, over double rounds.
fn mask_blocks(count: u32) -> u64 {
    11 * u64::from(count)
}

kernel! {
    /// words = fixed point of x + masks, in one pass.
    ENCODE_MASK = "masked/encode_mask", EncodeMask;
    bindings: [x: read f32, masks: read u32, words: write u32];
    reference: encode_mask;
    variants: [{
        name: "plain",
        source: "masked/encode_mask.wgsl",
        preludes: [INDEX, FIXED64, CHACHA],
        consts: [GROUP = 64],
        iterations: |p, _| mask_blocks(p.count),
        grid: |p, v| linear_grid(p.n as usize / BLOCK, v.constant("GROUP")),
    }];
}

kernel! {
    /// words += masks, in place.
    MASK_WORDS = "masked/mask_words", MaskWords;
    bindings: [masks: read u32, words: write u32];
    reference: mask_words::<F>;
    variants: [{
        name: "plain",
        source: "masked/mask_words.wgsl",
        preludes: [INDEX, CHACHA],
        consts: [GROUP = 64],
        iterations: |p, _| mask_blocks(p.count),
        grid: |p, v| linear_grid(p.n as usize / BLOCK, v.constant("GROUP")),
    }];
}

kernel! {
    /// total (+)= Σ over clients of words.
    SUM = "masked/sum", Sum;
    bindings: [words: read u32, total: write u32];
    reference: sum::<F>;
    variants: [{
        name: "plain",
        source: "masked/sum.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: |p, _| p.clients.into(),
        grid: |p, v| linear_grid(p.n as usize / 4, v.constant("GROUP")),
    }];
}

kernel! {
    /// mean = weight · (words + masks) as signed numbers.
    UNMASK_DECODE = "masked/unmask_decode", UnmaskDecode;
    bindings: [words: read u32, masks: read u32, mean: write f32];
    reference: unmask_decode;
    variants: [{
        name: "plain",
        source: "masked/unmask_decode.wgsl",
        preludes: [INDEX, CHACHA],
        consts: [GROUP = 64],
        iterations: |p, _| mask_blocks(p.count),
        grid: |p, v| linear_grid(p.n as usize / BLOCK, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] =
    &[ENCODE_MASK.any(), MASK_WORDS.any(), SUM.any(), UNMASK_DECODE.any()];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const N: usize = 32;
    const FRACTION_BITS: u32 = 16;

    /// The masks of client `u` of `n`: its own, and one with every other client, added by the
    /// lower of the two and subtracted by the higher.
    fn masks(u: u8, n: u8) -> Vec<Mask> {
        let mut masks = vec![Mask::new(&[u; 32], &[255; 12])];
        for v in (0..n).filter(|v| *v != u) {
            let pair = Mask::new(&[u.min(v); 32], &[u.max(v); 12]);
            masks.push(if u < v { pair } else { pair.negated() });
        }
        masks
    }

    fn encode(x: &[f32], masks: &[Mask], modulus_mask: u32) -> Vec<u32> {
        let p = EncodeMask {
            n: N as u32,
            stride: N as u32,
            count: masks.len() as u32,
            counter: 0,
            fraction_bits: FRACTION_BITS,
            bound: 1 << 22,
            modulus_mask,
        };
        let mut words = vec![0; N];
        encode_mask(&p, 1, x, bytemuck::cast_slice(masks), &mut words);
        words
    }

    proptest! {
        #[test]
        fn masks_of_pairs_cancel_and_own_masks_are_removed(
            clients in proptest::collection::vec(proptest::collection::vec(-8f32..8.0, N), 1..6),
            narrow: bool,
        ) {
            // 5 · 8 · 2^16 fits 23 bits and a sign.
            let modulus_mask = if narrow { (1 << 24) - 1 } else { u32::MAX };
            let n = clients.len();
            let mut uploads = Vec::new();
            for (u, x) in clients.iter().enumerate() {
                let upload = encode(x, &masks(u as u8, n as u8), modulus_mask);
                prop_assert!(upload.iter().all(|w| *w <= modulus_mask));
                uploads.extend(upload);
            }
            let mut total = vec![0; N];
            let p = Sum { n: N as u32, clients: n as u32, modulus_mask, accumulate: 0 };
            sum::<f32>(&p, 1, &uploads, &mut total);
            let own: Vec<Mask> =
                (0..n).map(|u| Mask::new(&[u as u8; 32], &[255; 12]).negated()).collect();
            let p = UnmaskDecode {
                n: N as u32,
                stride: N as u32,
                count: n as u32,
                counter: 0,
                modulus_mask,
                weight: 1.0 / (1 << FRACTION_BITS) as f32,
            };
            let mut ours = vec![0f64; N];
            unmask_decode(&p, 1, &total, bytemuck::cast_slice(&own), &mut ours);
            for i in 0..N {
                let codes: i64 = clients.iter().map(|x| fixed64(x[i], 1, FRACTION_BITS)).sum();
                prop_assert_eq!(ours[i], codes as f64 / f64::from(1 << FRACTION_BITS));
            }
        }
    }

    #[test]
    fn a_large_number_is_clipped_and_nan_is_zero() {
        let mut x = vec![0f32; N];
        x[..5].copy_from_slice(&[1e9, -1e9, f32::NAN, f32::INFINITY, -1.0]);
        let words = encode(&x, &[], u32::MAX);
        let expected = [1 << 22, (-1i32 << 22) as u32, 0, 0, (-1i32 << 16) as u32];
        assert_eq!(words[..5], expected);
    }

    #[test]
    fn words_are_masked_as_encoded_vectors_are() {
        let x: Vec<f32> = (0..N).map(|i| i as f32 - 7.5).collect();
        let masks = masks(1, 4);
        let mut words = encode(&x, &[], u32::MAX);
        let p = MaskWords {
            n: N as u32,
            count: masks.len() as u32,
            counter: 0,
            modulus_mask: u32::MAX,
        };
        mask_words::<f32>(&p, 1, bytemuck::cast_slice(&masks), &mut words);
        assert_eq!(words, encode(&x, &masks, u32::MAX));
    }

    #[test]
    fn the_second_block_is_a_stream_of_its_own() {
        let masks = masks(0, 2);
        let words = encode(&[0.0; N], &masks, u32::MAX);
        assert_ne!(words[..BLOCK], words[BLOCK..]);
    }
}
