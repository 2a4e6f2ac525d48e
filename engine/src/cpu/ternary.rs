//! Fast ternary codes: tasks of whole words, loops that the compiler turns into vectors.

use std::ops::Range;

use rayon::prelude::*;
use tern_shaders::cpu::ternary::{
    CODES, DecodeAccumulate, DecodeLanes, EncodeLanes, Moments, Quantize, code_at,
};
use tern_shaders::{Arg, TwinFn};

use super::random::pcg4d;

pub(super) static TABLE: super::Table = &[
    ("ternary/moments", moments as TwinFn<f32>),
    ("ternary/quantize", quantize),
    ("ternary/decode_accumulate", decode_accumulate),
    ("ternary/encode_lanes", encode_lanes),
    ("ternary/decode_lanes", decode_lanes),
];

/// Elements a task takes, a multiple of 64.
const CHUNK: usize = 4_096;

/// The parts of `range` that lie in one tensor each, with the tensor.
fn parts(segments: &[u32], range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let first = segments.partition_point(|start| *start as usize <= range.start).max(1) - 1;
    let last = segments.len() - 2;
    let mut at = range.start;
    (first..=last).map_while(move |tensor| {
        let end = if tensor == last { range.end } else { segments[tensor + 1] as usize };
        let part = at..end.min(range.end);
        at = part.end;
        (!part.is_empty()).then_some((tensor, part))
    })
}

fn finite_or_zero(x: f32) -> f32 {
    if x.to_bits() & 0x7f80_0000 == 0x7f80_0000 { 0.0 } else { x }
}

fn moments(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    /// Lanes a task takes; it walks its tensor in rows of all lanes.
    const LANES: usize = 64;
    let p: &Moments = bytemuck::from_bytes(p);
    let [x, residual, segments, lengths, thresholds, partials] = args else {
        unreachable!("bindings were checked")
    };
    let (tensors, lanes) = (p.tensors as usize, p.lanes as usize);
    let (x, residual) = (x.real(), residual.real());
    let (segments, lengths, thresholds) = (segments.word(), lengths.word(), thresholds.real());
    let partials = &mut partials.real_mut()[..4 * replicas * tensors * lanes];
    let tasks: Vec<_> = partials
        .chunks_mut(4 * lanes)
        .enumerate()
        .flat_map(|(row, partials)| {
            let tasks = partials.chunks_mut(4 * LANES).enumerate();
            tasks.map(move |(task, partials)| (row, task * LANES, partials))
        })
        .collect();
    tasks.into_par_iter().for_each(|(row, first, partials)| {
        let tensor = row % tensors;
        let start = row / tensors * p.stride as usize + segments[tensor] as usize;
        let length = lengths[tensor] as usize;
        // One array a moment, so that neighbors in a row are neighbors in memory.
        let mut sums = [[0f32; LANES]; 4];
        let width = partials.len() / 4;
        for i in (first..length).step_by(lanes) {
            let mut v = [0f32; LANES];
            let v = &mut v[..width.min(length - i)];
            v.copy_from_slice(&x[start + i..][..v.len()]);
            if p.feedback != 0 {
                for (v, residual) in v.iter_mut().zip(&residual[start + i..]) {
                    *v += residual;
                }
            }
            v.iter_mut().for_each(|v| *v = finite_or_zero(*v));
            let [most, magnitudes, values, squares] = &mut sums;
            for (lane, v) in v.iter().enumerate() {
                if p.above == 0 {
                    most[lane] = most[lane].max(v.abs());
                    magnitudes[lane] += v.abs();
                    values[lane] += v;
                    squares[lane] += v * v;
                } else if v.abs() > thresholds[row] {
                    most[lane] += v.abs();
                    magnitudes[lane] += 1.0;
                }
            }
        }
        for (lane, partial) in partials.chunks_exact_mut(4).enumerate() {
            partial.copy_from_slice(&sums.map(|moment| moment[lane]));
        }
    });
}

fn quantize(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Quantize = bytemuck::from_bytes(p);
    let [x, residual, segments, scales, thresholds, codes] = args else {
        unreachable!("bindings were checked")
    };
    let (n, stride) = (p.n as usize, p.stride as usize);
    let (x, scales, thresholds) = (x.real(), scales.real(), thresholds.real());
    let segments = &segments.word()[..=p.tensors as usize];
    let mut residual = residual.real_mut();
    let codes = &mut codes.word_mut()[..replicas * n / CODES];
    for (r, codes) in codes.chunks_mut(n / CODES).enumerate() {
        let x = &x[r * stride..][..n];
        let mut tasks: Vec<(&mut [u32], &mut [f32])> =
            codes.chunks_mut(CHUNK / CODES).map(|codes| (codes, &mut [][..])).collect();
        if p.feedback != 0 {
            let (own, rest) = residual.split_at_mut(stride.min(residual.len()));
            for (task, residual) in tasks.iter_mut().zip(own[..n].chunks_mut(CHUNK)) {
                task.1 = residual;
            }
            residual = rest;
        }
        let row = r * p.scales_stride as usize;
        tasks.into_par_iter().enumerate().for_each(|(task, (codes, residual))| {
            let first = task * CHUNK;
            for (tensor, part) in parts(segments, first..first + codes.len() * CODES) {
                let scale = scales[row + tensor];
                let scale = if scale.is_normal() && scale > 0.0 { scale } else { 0.0 };
                let rule = Rule { p, r: r as u32, scale, threshold: thresholds[row + tensor] };
                let codes = &mut codes[(part.start - first) / CODES..(part.end - first) / CODES];
                let residual = match p.feedback {
                    0 => &mut [][..],
                    _ => &mut residual[part.start - first..part.end - first],
                };
                rule.words(part.start / CODES, codes, &x[part], residual);
            }
        });
    }
}

/// How the elements of a tensor are coded.
struct Rule<'a> {
    p: &'a Quantize,
    r: u32,
    scale: f32,
    threshold: f32,
}

impl Rule<'_> {
    /// The codes of `x` from word `first` on; `residual` is empty without feedback.
    fn words(&self, first: usize, codes: &mut [u32], x: &[f32], residual: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            #[target_feature(enable = "avx2")]
            fn wide(
                rule: &Rule<'_>,
                first: usize,
                codes: &mut [u32],
                x: &[f32],
                residual: &mut [f32],
            ) {
                rule.any_width(first, codes, x, residual);
            }
            // SAFETY: the processor has AVX2.
            return unsafe { wide(self, first, codes, x, residual) };
        }
        self.any_width(first, codes, x, residual);
    }

    #[inline(always)]
    fn any_width(&self, first: usize, codes: &mut [u32], x: &[f32], residual: &mut [f32]) {
        let words = codes.iter_mut().zip(x.as_chunks().0).enumerate();
        let mut residual = residual.as_chunks_mut().0.iter_mut();
        let mut bounds = [[0.0; CODES]; 2];
        for (word, (code, x)) in words {
            // Two words take eight draws of four numbers.
            if word % 2 == 0 {
                bounds = self.bounds(first + word);
            }
            *code = match residual.next() {
                Some(residual) => self.word::<true>(x, &bounds[word % 2], residual),
                None => self.word::<false>(x, &bounds[word % 2], &mut [0.0; CODES]),
            };
        }
    }

    /// What an element of two words from `word` on fires above.
    #[inline(always)]
    fn bounds(&self, word: usize) -> [[f32; CODES]; 2] {
        if self.scale == 0.0 {
            return [[f32::INFINITY; CODES]; 2];
        }
        if self.p.threshold != 0 {
            return [[self.threshold; CODES]; 2];
        }
        let mut keys = [[0; 8]; 4];
        for (k, key) in keys[0].iter_mut().enumerate() {
            *key = (4 * word + k) as u32;
        }
        keys[1] = [self.p.step; 8];
        keys[2] = [self.p.salt.wrapping_add(self.r); 8];
        keys[3] = [self.p.seed; 8];
        // As `random::uniform`; 24 bits are as well signed.
        let bound = |bits: u32| (bits >> 8) as i32 as f32 * (1.0 / 16_777_216.0) * self.scale;
        let draws = pcg4d(keys).map(|word| word.map(bound));
        let mut bounds = [[0.0; CODES]; 2];
        for (i, bound) in bounds.as_flattened_mut().iter_mut().enumerate() {
            *bound = draws[i % 4][i / 4];
        }
        bounds
    }

    /// The codes of 16 elements; what they leave goes to the residual.
    #[inline(always)]
    fn word<const FEEDBACK: bool>(
        &self,
        x: &[f32; CODES],
        bounds: &[f32; CODES],
        residual: &mut [f32; CODES],
    ) -> u32 {
        let mut codes = [0; CODES];
        for k in 0..CODES {
            let v = finite_or_zero(if FEEDBACK { x[k] + residual[k] } else { x[k] });
            let fires = v.abs() > bounds[k];
            let (code, decoded) = if v < 0.0 { (2, -self.scale) } else { (1, self.scale) };
            codes[k] = if fires { code << (2 * k) } else { 0 };
            if FEEDBACK {
                residual[k] = v - if fires { decoded } else { 0.0 };
            }
        }
        codes.iter().fold(0, |packed, code| packed | code)
    }
}

/// The four codes of each byte as floats.
static DECODED: [[f32; 4]; 256] = {
    let mut table = [[0.0; 4]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut k = 0;
        while k < 4 {
            let code = (byte >> (2 * k)) & 3;
            table[byte][k] = (code & 1) as f32 - (code >> 1) as f32;
            k += 1;
        }
        byte += 1;
    }
    table
};

fn decode_accumulate(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &DecodeAccumulate = bytemuck::from_bytes(p);
    let [codes, segments, scales, weights, sum] = args else {
        unreachable!("bindings were checked")
    };
    let (n, clients) = (p.n as usize, p.clients as usize);
    let (codes, scales, weights) = (codes.word(), scales.real(), weights.real());
    let segments = &segments.word()[..=p.tensors as usize];
    for (r, sum) in sum.real_mut().chunks_mut(p.stride as usize).take(replicas).enumerate() {
        sum[..n].par_chunks_mut(CHUNK).enumerate().for_each(|(task, sum)| {
            if p.accumulate == 0 {
                sum.fill(0.0);
            }
            let first = task * CHUNK;
            for (tensor, part) in parts(segments, first..first + sum.len()) {
                let sum = &mut sum[part.start - first..part.end - first];
                for c in r * clients..(r + 1) * clients {
                    let codes = &codes[c * n / CODES..];
                    let codes = &codes[part.start / CODES..part.end / CODES];
                    let step = weights[c] * scales[c * p.scales_stride as usize + tensor];
                    for (sum, word) in sum.as_chunks_mut::<CODES>().0.iter_mut().zip(codes) {
                        let quarters = sum.as_chunks_mut::<4>().0;
                        for (sum, byte) in quarters.iter_mut().zip(word.to_le_bytes()) {
                            for (sum, code) in sum.iter_mut().zip(DECODED[usize::from(byte)]) {
                                *sum += step * code;
                            }
                        }
                    }
                }
            }
        });
    }
}

fn encode_lanes(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &EncodeLanes = bytemuck::from_bytes(p);
    let [codes, lanes] = args else { unreachable!("bindings were checked") };
    let (n, words, per_word) = (p.n as usize, p.words as usize, (32 / p.bits) as usize);
    let codes = codes.word();
    // The lanes of four codes, by the byte that holds them.
    let quads: [u32; 256] = std::array::from_fn(|byte| {
        (0..4).fold(0, |packed, i| {
            // More than a word only where lanes are too wide for four of them to be in one.
            let lane = ((code_at(&[byte as u32], i) + 1) as u32).checked_shl(i as u32 * p.bits);
            packed | lane.unwrap_or(0)
        })
    });
    let lanes = &mut lanes.word_mut()[..replicas * words];
    for (r, lanes) in lanes.chunks_mut(words).enumerate() {
        let codes = &codes[r * n / CODES..][..n / CODES];
        let task = CHUNK / 4;
        lanes.par_chunks_mut(task).enumerate().for_each(|(chunk, lanes)| {
            for (word, packed) in lanes.iter_mut().enumerate() {
                let first = ((chunk * task + word) * per_word).min(n);
                let end = (first + per_word).min(n);
                *packed = 0;
                if per_word % 4 == 0 {
                    for (quad, i) in (first..end).step_by(4).enumerate() {
                        let byte = codes[i / CODES] >> (2 * (i % CODES));
                        *packed |= quads[(byte & 0xff) as usize] << (4 * quad as u32 * p.bits);
                    }
                } else {
                    for (lane, i) in (first..end).enumerate() {
                        *packed |= ((code_at(codes, i) + 1) as u32) << (lane as u32 * p.bits);
                    }
                }
            }
        });
    }
}

fn decode_lanes(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &DecodeLanes = bytemuck::from_bytes(p);
    let [lanes, segments, scales, mean] = args else { unreachable!("bindings were checked") };
    let (n, words, per_word) = (p.n as usize, p.words as usize, (32 / p.bits) as usize);
    let (lanes, scales) = (lanes.word(), scales.real());
    let segments = &segments.word()[..=p.tensors as usize];
    for (r, mean) in mean.real_mut().chunks_mut(p.stride as usize).take(replicas).enumerate() {
        let lanes = &lanes[r * words..][..words];
        mean[..n].par_chunks_mut(CHUNK).enumerate().for_each(|(task, mean)| {
            let first = task * CHUNK;
            for (tensor, part) in parts(segments, first..first + mean.len()) {
                let step = p.weight * scales[r * p.scales_stride as usize + tensor];
                let (mut word, mut lane) = (part.start / per_word, part.start % per_word);
                for mean in &mut mean[part.start - first..part.end - first] {
                    let bits = (lanes[word] >> (lane as u32 * p.bits)) & ((1 << p.bits) - 1);
                    let value = step * (bits as i32 - p.clients as i32) as f32;
                    *mean = if p.accumulate != 0 { *mean + value } else { value };
                    lane += 1;
                    if lane == per_word {
                        (word, lane) = (word + 1, 0);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_range_tensor_by_tensor() {
        let segments = [0, 64, 192, 256];
        let all: Vec<_> = parts(&segments, 0..256).collect();
        assert_eq!(all, [(0, 0..64), (1, 64..192), (2, 192..256)]);
        let some: Vec<_> = parts(&segments, 80..200).collect();
        assert_eq!(some, [(1, 80..192), (2, 192..200)]);
        assert_eq!(parts(&segments, 64..128).collect::<Vec<_>>(), [(1, 64..128)]);
    }

    #[test]
    fn vectors_of_any_width_give_the_same_codes() {
        let x: Vec<f32> = (0..5 * CODES).map(|i| (i as f32 * 0.7).sin()).collect();
        for feedback in [0, 1] {
            let p = Quantize { feedback, step: 3, seed: 8, ..Quantize::default() };
            let rule = Rule { p: &p, r: 2, scale: 0.8, threshold: 0.0 };
            // Five words: the last has half of the draws to itself.
            let (mut codes, mut plain) = ([0; 5], [0; 5]);
            let mut residual = vec![0.1; feedback as usize * x.len()];
            let mut left = residual.clone();
            rule.words(7, &mut codes, &x, &mut residual);
            rule.any_width(7, &mut plain, &x, &mut left);
            assert_eq!((codes, residual), (plain, left));
            assert!(codes.iter().all(|word| *word != 0));
        }
    }
}
