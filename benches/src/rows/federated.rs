//! Rows of the kernels that updates pass through: ternary codes, masks, sums.

use tern_engine::Data;
use tern_shaders::kernels::aggregate::{ACCUMULATE, Accumulate, FINISH, Finish};
use tern_shaders::kernels::chacha::WORDS_A_MASK;
use tern_shaders::kernels::masked::{
    ENCODE_MASK, EncodeMask, SUM, Sum, UNMASK_DECODE, UnmaskDecode,
};
use tern_shaders::kernels::ternary::{
    CODES, DECODE_ACCUMULATE, DECODE_LANES, DecodeAccumulate, DecodeLanes, ENCODE_LANES,
    EncodeLanes, QUANTIZE, Quantize, lane_bits, lane_words,
};
use tern_shaders::kernels::update::{DIFFERENCE, Difference, RESCALE, Rescale};

use super::Size;
use super::recipe::{
    Contents, Recipe, all_floats, bits, case, floats, repeated, word, words, words_by,
};

/// Rows of these families.
pub fn rows(size: Size) -> Vec<Recipe> {
    let n: u32 = size.pick(1 << 18, 1 << 22);
    [ternary(n), masked(n), aggregate(n), update(n)].concat()
}

/// Tensors of the flat vector.
const TENSORS: u32 = 12;

fn label(n: u32, more: &str) -> String {
    format!("{} Ki words{more}", n >> 10)
}

fn ternary(n: u32) -> Vec<Recipe> {
    let all = n as usize;
    let part = (n / TENSORS).next_multiple_of(64);
    let segments: Vec<u32> = (0..TENSORS).map(|t| t * part).chain([n]).collect();
    let segments = Contents::from(Data::U32(segments));
    let tensor = |value: f32| repeated([value], TENSORS as usize);
    let codes = |updates: usize| {
        let any = word(1);
        // No pair of bits is 3, which is no code.
        words_by(updates * all / CODES, move |i| {
            let w = any(i);
            w & !((w & (w >> 1) & 0x5555_5555) << 1)
        })
    };
    let mut cases = Vec::new();
    for (what, threshold) in [("drawn", 0), ("thresholded", 1)] {
        let p = Quantize {
            n,
            stride: n,
            tensors: TENSORS,
            threshold,
            feedback: 1,
            seed: 7,
            ..Quantize::default()
        };
        let buffers = vec![
            floats(all, 1),
            floats(all, 2),
            segments.clone(),
            tensor(1.0),
            tensor(0.5),
            words(all / CODES, 1, 3),
        ];
        let mut row = case(&QUANTIZE, label(n, &format!(", {what}")), &p, buffers);
        row.words_may_differ = 1e-3;
        cases.push(row);
    }
    let clients = 8;
    let p = DecodeAccumulate {
        n,
        stride: n,
        tensors: TENSORS,
        clients,
        scales_stride: 0,
        accumulate: 0,
    };
    let weights = repeated([0.125], clients as usize);
    let buffers = vec![codes(8), segments.clone(), tensor(0.5), weights, floats(all, 4)];
    cases.push(case(&DECODE_ACCUMULATE, label(n, ", 8 clients"), &p, buffers));

    let lane = lane_bits(clients);
    let lanes = lane_words(all, lane);
    let p = EncodeLanes { n, words: lanes as u32, bits: lane };
    let buffers = vec![codes(1), words(lanes, 1, 5)];
    cases.push(case(&ENCODE_LANES, label(n, &format!(", {lane} bits")), &p, buffers));
    let p = DecodeLanes {
        n,
        stride: n,
        words: lanes as u32,
        bits: lane,
        tensors: TENSORS,
        clients,
        weight: 0.125,
        ..DecodeLanes::default()
    };
    let buffers = vec![bits(lanes, 6), segments, tensor(0.5), floats(all, 7)];
    cases.push(case(&DECODE_LANES, label(n, &format!(", {lane} bits")), &p, buffers));
    cases
}

fn masked(n: u32) -> Vec<Recipe> {
    let (all, modulus_mask) = (n as usize, u32::MAX);
    let masks = |count: usize| bits(count * WORDS_A_MASK, 9);
    let mut cases = Vec::new();
    for count in [1, 10] {
        let p = EncodeMask {
            n,
            stride: n,
            count,
            counter: 0,
            fraction_bits: 16,
            bound: 1 << 20,
            modulus_mask,
        };
        let buffers = vec![floats(all, 1), masks(count as usize), words(all, 1, 2)];
        cases.push(case(&ENCODE_MASK, label(n, &format!(", {count} masks")), &p, buffers));
    }
    let clients = 8;
    let p = Sum { n, clients, modulus_mask, accumulate: 0 };
    let buffers = vec![bits(clients as usize * all, 3), words(all, 1, 4)];
    cases.push(case(&SUM, label(n, ", 8 clients"), &p, buffers));
    let p =
        UnmaskDecode { n, stride: n, count: 1, counter: 0, modulus_mask, weight: 1.0 / 65536.0 };
    let buffers = vec![bits(all, 5), masks(1), floats(all, 6)];
    cases.push(case(&UNMASK_DECODE, label(n, ", 1 mask"), &p, buffers));
    cases
}

fn aggregate(n: u32) -> Vec<Recipe> {
    let (all, clients, fraction_bits) = (n as usize, 4, 24);
    let p = Accumulate { n, stride: n, clients, fraction_bits };
    let buffers = vec![
        floats(clients as usize * all, 1),
        words(clients as usize, 1000, 2),
        words(2 * all, 1, 3),
    ];
    let accumulate = case(&ACCUMULATE, label(n, ", 4 clients"), &p, buffers);
    let p = Finish { n, stride: n, weight_low: 1000, weight_high: 0, fraction_bits };
    // High words are small, so that the sums are within the weight's.
    let any = word(4);
    let sums = words_by(2 * all, move |i| if i % 2 == 0 { any(i) } else { any(i) & 3 });
    let finish = case(&FINISH, label(n, ""), &p, vec![sums, floats(all, 5)]);
    vec![accumulate, finish]
}

fn update(n: u32) -> Vec<Recipe> {
    let all = n as usize;
    let buffers = all_floats(&DIFFERENCE, &[all, all, all]);
    let difference = case(&DIFFERENCE, label(n, ""), &Difference { n }, buffers);
    let buffers = all_floats(&RESCALE, &[1, all]);
    vec![difference, case(&RESCALE, label(n, ""), &Rescale { n }, buffers)]
}
