//! Cases of the ternary kernels.

use tern_shaders::kernels::ternary::{
    CODES, DECODE_ACCUMULATE, DECODE_LANES, DecodeAccumulate, DecodeLanes, ENCODE_LANES,
    EncodeLanes, MOMENTS, Moments, QUANTIZE, Quantize, SCALE, Scale, ScaleKind, lane_bits,
    lane_words,
};

use crate::Data;
use crate::ops::Case;
use crate::ops::aggregate::{numbers, words};

/// A layout by the lengths of its tensors.
struct Layout {
    segments: Data,
    lengths: Vec<u32>,
    n: usize,
}

impl Layout {
    fn new(lengths: &[u32]) -> Self {
        let mut segments = vec![0];
        let mut n = 0;
        for length in lengths {
            n += length.next_multiple_of(64);
            segments.push(n);
        }
        Layout { segments: Data::U32(segments), lengths: lengths.to_vec(), n: n as usize }
    }

    fn tensors(&self) -> usize {
        self.lengths.len()
    }

    /// Scales of no simple size, and one that is none.
    fn scales(&self, rows: usize) -> Data {
        let scale = |i: usize| if i % 5 == 4 { 0.0 } else { 0.003 + 0.37 * i as f32 };
        Data::F32((0..rows * self.tensors()).map(scale).collect())
    }
}

/// Multiples of 2^-10 in ±1, so that sums of two are exact.
fn grid(n: usize) -> Data {
    Data::F32(words(n).iter().map(|w| (w % 2_048) as f32 / 1_024.0 - 1.0).collect())
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (lengths, replicas) in
        [(&[1][..], 1), (&[65, 1, 128, 1_000, 63, 64, 7], 3), (&[5, 400_000], 1)]
    {
        let layout = Layout::new(lengths);
        scale_cases(&mut cases, &layout, replicas);
        code_cases(&mut cases, &layout, replicas);
        for (clients, replicas) in [(1, replicas), (6, 1), (127, 1)] {
            if layout.n < 10_000 || clients == 6 {
                decode_cases(&mut cases, &layout, clients, replicas);
            }
        }
    }
    subnormal_cases(&mut cases);
    // More clients than a nested loop on a software device could take.
    decode_cases(&mut cases, &Layout::new(&[3]), 6_000, 1);
    cases
}

fn scale_cases(cases: &mut Vec<Case>, layout: &Layout, replicas: usize) {
    let tensors = layout.tensors();
    let longest = layout.lengths.iter().copied().max().unwrap_or(0);
    // At 7 lanes the largest tensor takes 57,143 turns, close to what a software device allows.
    for lanes in [7, 64, 200] {
        for (feedback, above) in [(0, 0), (1, 0), (1, 1)] {
            let stride = layout.n as u32 + 4;
            let p = Moments { tensors: tensors as u32, stride, longest, lanes, feedback, above };
            let partials = 4 * replicas * tensors * lanes as usize;
            let buffers = vec![
                grid(stride as usize * replicas),
                grid(stride as usize * replicas),
                layout.segments.clone(),
                Data::U32(layout.lengths.clone()),
                layout.scales(replicas),
                Data::F32(vec![9.0; partials]),
            ];
            let label = format!("{} in {lanes} lanes, above {above}", layout.n);
            // Sums of up to 57,143 terms, one after the other.
            cases.push(Case::new(&MOMENTS, label, &p, replicas, buffers).tolerance(2e-4));
        }
        for (kind, factor) in [
            (ScaleKind::Maximum, 0.0),
            (ScaleKind::Maximum, 0.4),
            (ScaleKind::Threshold, 0.7),
            (ScaleKind::MeanAbove, 0.0),
        ] {
            let p = Scale { tensors: tensors as u32, lanes, kind: kind as u32, factor };
            let partials = words(4 * replicas * tensors * lanes as usize);
            // Sums of squares are large enough for a variance above zero.
            let partial = |(i, w): (usize, &u32)| (w % 1_000) as f32 * [0.1, 1.0, 0.01, 9.0][i % 4];
            let buffers = vec![
                Data::F32(partials.iter().enumerate().map(partial).collect()),
                Data::U32(layout.lengths.clone()),
                Data::F32(vec![9.0; replicas * tensors]),
                Data::F32(vec![9.0; replicas * tensors]),
            ];
            let label = format!("{tensors} of {lanes} lanes, {kind:?} {factor}");
            cases.push(Case::new(&SCALE, label, &p, replicas, buffers));
        }
    }
}

fn code_cases(cases: &mut Vec<Case>, layout: &Layout, replicas: usize) {
    let n = layout.n;
    for (threshold, feedback, shared) in [(0, 0, true), (0, 1, false), (1, 1, true), (1, 0, false)]
    {
        let (rows, scales_stride) = if shared { (1, 0) } else { (replicas, layout.tensors()) };
        let stride = n as u32 + 4;
        let p = Quantize {
            n: n as u32,
            stride,
            tensors: layout.tensors() as u32,
            scales_stride: scales_stride as u32,
            threshold,
            feedback,
            step: 11,
            salt: u32::MAX,
            seed: 77,
        };
        let buffers = vec![
            Data::F32(numbers(stride as usize * replicas)),
            grid(stride as usize * replicas),
            layout.segments.clone(),
            layout.scales(rows),
            layout.scales(rows),
            Data::U32(words(n / CODES * replicas)),
        ];
        let label = format!("{n}, threshold {threshold}, feedback {feedback}");
        cases.push(Case::new(&QUANTIZE, label, &p, replicas, buffers).tolerance(0.0));
    }
    lane_cases(cases, layout, replicas);
}

/// Numbers around the smallest normal one, and what two of them leave: devices that take subnormal
/// numbers for zero come to the same codes and residuals as those that compute with them.
fn subnormal_cases(cases: &mut Vec<Case>) {
    let small = [
        1e-40,
        -1e-40,
        2e-38,
        -2e-38,
        f32::MIN_POSITIVE,
        f32::MIN_POSITIVE.next_down(),
        1.5e-38,
        -1.4e-38,
        0.0,
        -0.0,
        0.37,
    ];
    let layout = Layout::new(&[64, 64, 64]);
    let at = |i: usize| small[i % small.len()];
    for threshold in [0, 1] {
        let p = Quantize {
            n: layout.n as u32,
            stride: layout.n as u32,
            tensors: 3,
            scales_stride: 0,
            threshold,
            feedback: 1,
            step: 3,
            salt: 1,
            seed: 5,
        };
        let buffers = vec![
            Data::F32((0..layout.n).map(at).collect()),
            Data::F32((0..layout.n).map(|i| at(i / small.len())).collect()),
            layout.segments.clone(),
            Data::F32(vec![1.5e-38, 0.37, 1e-40]),
            Data::F32(vec![1e-40, 1.3e-38, 0.0]),
            Data::U32(vec![9; layout.n / CODES]),
        ];
        let label = format!("subnormal numbers, threshold {threshold}");
        cases.push(Case::new(&QUANTIZE, label, &p, 1, buffers).tolerance(0.0));
    }
}

fn lane_cases(cases: &mut Vec<Case>, layout: &Layout, replicas: usize) {
    let n = layout.n;
    for clients in [1, 5, 100] {
        let bits = lane_bits(clients);
        let row = lane_words(n, bits);
        let p = EncodeLanes { n: n as u32, words: row as u32, bits };
        let buffers =
            vec![Data::U32(words(n / CODES * replicas)), Data::U32(words(row * replicas))];
        let label = format!("{n} in {bits} bits");
        cases.push(Case::new(&ENCODE_LANES, &label, &p, replicas, buffers));
        let stride = n as u32 + 4;
        let p = DecodeLanes {
            n: n as u32,
            stride,
            words: row as u32,
            bits,
            tensors: layout.tensors() as u32,
            scales_stride: 0,
            clients,
            weight: 1.0 / clients as f32,
            accumulate: clients % 2,
        };
        let buffers = vec![
            Data::U32(words(row * replicas)),
            layout.segments.clone(),
            layout.scales(1),
            grid(stride as usize * replicas),
        ];
        cases.push(Case::new(&DECODE_LANES, label, &p, replicas, buffers).tolerance(1e-6));
    }
}

fn decode_cases(cases: &mut Vec<Case>, layout: &Layout, clients: usize, replicas: usize) {
    let n = layout.n;
    for (accumulate, scales_stride) in [(0, layout.tensors()), (1, 0)] {
        let stride = n as u32 + 4;
        let p = DecodeAccumulate {
            n: n as u32,
            stride,
            tensors: layout.tensors() as u32,
            clients: clients as u32,
            scales_stride: scales_stride as u32,
            accumulate,
        };
        let rows = if scales_stride == 0 { 1 } else { clients * replicas };
        let buffers = vec![
            Data::U32(words(n / CODES * clients * replicas)),
            layout.segments.clone(),
            layout.scales(rows),
            grid(clients * replicas),
            grid(stride as usize * replicas),
        ];
        let label = format!("{n} from {clients}, accumulate {accumulate}");
        cases.push(Case::new(&DECODE_ACCUMULATE, label, &p, replicas, buffers));
    }
}
