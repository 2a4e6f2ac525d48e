//! Codes in lanes for secure aggregation: each lane is wide enough for the sum of all clients,
//! so that whole words can be masked and added mod 2^32 without a carry from lane to lane.
//!
//! A lane holds code + 1, which is 0, 1 or 2; n clients add up to 2n at most, below 2^bits.
//! Between masking and unmasking a word is one number mod 2^32; once the masks are gone it is
//! the sum of the clients' words, and no lane of it has overflown.

use super::{code_at, tensor_of};
use crate::kernels::chacha::BLOCK;
use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`ENCODE_LANES`].
    EncodeLanes {
        /// Elements a replica, a multiple of 16.
        n: u32,
        /// Words a replica takes in `lanes`, see [`lane_words`].
        words: u32,
        /// Bits a lane, see [`lane_bits`].
        bits: u32,
    }
);

params!(
    /// Parameters of [`DECODE_LANES`].
    DecodeLanes {
        /// Elements a replica, a multiple of 16.
        n: u32,
        /// Words a replica takes in `mean`, a multiple of 4.
        stride: u32,
        /// Words a replica takes in `lanes`, see [`lane_words`].
        words: u32,
        /// Bits a lane, at most 31.
        bits: u32,
        /// Tensors of the vector.
        tensors: u32,
        /// Words a replica takes in `scales`; 0 if all share one row.
        scales_stride: u32,
        /// Clients in the sum.
        clients: u32,
        /// What a sum of codes is multiplied by: 1 / clients for the mean.
        weight: f32,
        /// 1 adds to `mean`, 0 overwrites it.
        accumulate: u32,
    }
);

/// Bits of a lane that holds the sum of up to `clients` codes: ⌈log2(2 · clients + 1)⌉.
pub fn lane_bits(clients: u32) -> u32 {
    (2 * u64::from(clients) + 1).next_power_of_two().trailing_zeros()
}

/// Words that `n` lanes take, rounded up to whole blocks of a mask's stream.
pub fn lane_words(n: usize, bits: u32) -> usize {
    n.div_ceil((32 / bits) as usize).next_multiple_of(BLOCK)
}

/// Codes to lanes, the first element lowest in a word. Lanes past the vector's end are 0.
/// Shapes: `codes` `[R, n / 16]`, `lanes` `[R, words]`. Generic only to have a reference's signature.
pub fn encode_lanes<F: Real>(p: &EncodeLanes, replicas: usize, codes: &[u32], lanes: &mut [u32]) {
    let (n, per_word) = (p.n as usize, (32 / p.bits) as usize);
    for r in 0..replicas {
        for word in 0..p.words as usize {
            let mut packed = 0;
            for lane in 0..per_word {
                let i = word * per_word + lane;
                if i < n {
                    let code = code_at(codes, r * n + i);
                    packed |= ((code + 1) as u32) << (lane as u32 * p.bits);
                }
            }
            lanes[r * p.words as usize + word] = packed;
        }
    }
}

/// mean (+)= scale · weight · (lane − clients). Shapes: `lanes` `[R, words]`, `segments`
/// `[tensors + 1]`, `scales` `[tensors]` or `[R, tensors]`, `mean` `[R, stride]`.
pub fn decode_lanes<F: Real>(
    p: &DecodeLanes,
    replicas: usize,
    lanes: &[u32],
    segments: &[u32],
    scales: &[F],
    mean: &mut [F],
) {
    let per_word = (32 / p.bits) as usize;
    for r in 0..replicas {
        for i in 0..p.n as usize {
            let word = lanes[r * p.words as usize + i / per_word];
            let lane = (word >> ((i % per_word) as u32 * p.bits)) & ((1 << p.bits) - 1);
            let codes = lane as i32 - p.clients as i32;
            let scale = scales[r * p.scales_stride as usize + tensor_of(segments, p.tensors, i)];
            let value = F::of(p.weight) * scale * F::of(codes as f32);
            let at = r * p.stride as usize + i;
            mean[at] = if p.accumulate != 0 { mean[at] + value } else { value };
        }
    }
}

kernel! {
    /// Codes to lanes that clients' sums fit.
    ENCODE_LANES = "ternary/encode_lanes", EncodeLanes;
    bindings: [codes: read u32, lanes: write u32];
    reference: encode_lanes::<F>;
    variants: [{
        name: "plain",
        source: "ternary/encode_lanes.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: |p, _| (u32::BITS / p.bits).into(),
        grid: |p, v| linear_grid(p.words as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// mean (+)= scale · weight · (lane − clients).
    DECODE_LANES = "ternary/decode_lanes", DecodeLanes;
    bindings: [lanes: read u32, segments: read u32, scales: read f32, mean: write f32];
    reference: decode_lanes;
    variants: [{
        name: "plain",
        source: "ternary/decode_lanes.wgsl",
        preludes: [INDEX, SEGMENT],
        consts: [GROUP = 64],
        iterations: |p, _| super::search(p.tensors),
        grid: |p, v| linear_grid(p.n as usize / 4, v.constant("GROUP")),
    }];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::chacha::{Mask, add_block};
    use proptest::prelude::*;

    const N: usize = 128;

    fn encode(codes: &[u32], bits: u32) -> Vec<u32> {
        let words = lane_words(N, bits);
        let p = EncodeLanes { n: N as u32, words: words as u32, bits };
        let mut lanes = vec![u32::MAX; words];
        encode_lanes::<f32>(&p, 1, codes, &mut lanes);
        lanes
    }

    fn decode(lanes: &[u32], bits: u32, clients: u32, scales: &[f64; 2]) -> Vec<f64> {
        let p = DecodeLanes {
            n: N as u32,
            stride: N as u32,
            words: lanes.len() as u32,
            bits,
            tensors: 2,
            scales_stride: 0,
            clients,
            weight: 1.0,
            accumulate: 0,
        };
        let mut mean = vec![9.0; N];
        decode_lanes(&p, 1, lanes, &[0, 64, 128], scales, &mut mean);
        mean
    }

    #[test]
    fn lanes_are_as_wide_as_the_sum() {
        for (clients, bits) in [(1, 2), (2, 3), (3, 3), (4, 4), (100, 8), (127, 8), (128, 9)] {
            assert_eq!(lane_bits(clients), bits, "{clients}");
        }
        assert_eq!(lane_words(1_000, 8), 256);
        assert_eq!(lane_words(1, 5), 16);
    }

    #[test]
    fn sums_at_the_extremes_stay_in_their_lanes() {
        // +1 in every even element and −1 in every odd one, and the other way around.
        for pattern in [0b1001, 0b0110] {
            let codes = [(0..8).fold(0, |word, i| word | pattern << (4 * i)); N / 16];
            for clients in [1, 2, 3, 4, 7, 8, 100, 127, 128] {
                let bits = lane_bits(clients);
                let total: Vec<u32> = encode(&codes, bits).iter().map(|w| w * clients).collect();
                let sums = decode(&total, bits, clients, &[1.0, 1.0]);
                for i in 0..N {
                    let expected = code_at(&codes, i) * clients as i32;
                    assert_eq!(sums[i], f64::from(expected), "{clients} clients, element {i}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn masked_words_sum_to_the_codes(
            clients in proptest::collection::vec(proptest::collection::vec(any::<u32>(), N / 16), 1..40),
        ) {
            let n = clients.len();
            let bits = lane_bits(n as u32);
            let mask = |u: usize| Mask::new(&[u as u8; 32], &[0; 12]);
            let mut total = vec![0u32; lane_words(N, bits)];
            for (u, codes) in clients.iter().enumerate() {
                let mut words = encode(codes, bits);
                for (counter, block) in words.chunks_mut(BLOCK).enumerate() {
                    // A ring of pairs: each mask is added by one and subtracted by the next.
                    add_block(block, &mask(u), counter as u32);
                    add_block(block, &mask((u + 1) % n).negated(), counter as u32);
                }
                for (total, word) in total.iter_mut().zip(words) {
                    *total = total.wrapping_add(word);
                }
            }
            let sums = decode(&total, bits, n as u32, &[0.5, 2.0]);
            for i in 0..N {
                let sum: i32 = clients.iter().map(|codes| code_at(codes, i)).sum();
                prop_assert_eq!(sums[i], f64::from(sum) * if i < 64 { 0.5 } else { 2.0 });
            }
        }
    }
}
