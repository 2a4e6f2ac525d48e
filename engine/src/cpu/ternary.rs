//! Fast ternary codes: tasks of whole words, loops that the compiler turns into vectors.

use std::ops::Range;

use rayon::prelude::*;
use tern_shaders::cpu::random::{pcg4d, uniform};
use tern_shaders::cpu::ternary::{
    CODES, DecodeAccumulate, DecodeLanes, EncodeLanes, Moments, Quantize, code_at,
};
use tern_shaders::{Arg, TwinFn};

pub(super) static FAST: super::Table = &[
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
                let words = codes.iter_mut().zip(x[part.clone()].as_chunks::<CODES>().0);
                if p.feedback == 0 {
                    for (word, (code, x)) in words.enumerate() {
                        *code = rule.word(part.start / CODES + word, x, None);
                    }
                } else {
                    let residual = &mut residual[part.start - first..part.end - first];
                    let residual = residual.as_chunks_mut::<CODES>().0;
                    for (word, ((code, x), residual)) in words.zip(residual).enumerate() {
                        *code = rule.word(part.start / CODES + word, x, Some(residual));
                    }
                }
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
    /// The word of 16 elements; its number in the vector is `word`.
    #[inline]
    fn word(&self, word: usize, x: &[f32; CODES], mut residual: Option<&mut [f32; CODES]>) -> u32 {
        let mut v = *x;
        if let Some(residual) = &residual {
            for (v, residual) in v.iter_mut().zip(residual.iter()) {
                *v += residual;
            }
        }
        v.iter_mut().for_each(|v| *v = finite_or_zero(*v));
        // An element fires above its bound.
        let mut bounds = [self.threshold; CODES];
        if self.scale == 0.0 {
            bounds = [f32::INFINITY; CODES];
        } else if self.p.threshold == 0 {
            for (quarter, bounds) in bounds.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let salt = self.p.salt.wrapping_add(self.r);
                let key = [(4 * word + quarter) as u32, self.p.step, salt, self.p.seed];
                *bounds = pcg4d(key).map(|bits| uniform(bits) * self.scale);
            }
        }
        let mut packed = 0;
        for k in 0..CODES {
            let fires = v[k].abs() > bounds[k];
            let negative = v[k] < 0.0;
            packed |= (u32::from(fires) << u32::from(negative)) << (2 * k);
            if let Some(residual) = &mut residual {
                let decoded = if negative { -self.scale } else { self.scale };
                residual[k] = v[k] - if fires { decoded } else { 0.0 };
            }
        }
        packed
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
    let lanes = &mut lanes.word_mut()[..replicas * words];
    for (r, lanes) in lanes.chunks_mut(words).enumerate() {
        let codes = &codes[r * n / CODES..][..n / CODES];
        let task = CHUNK / 4;
        lanes.par_chunks_mut(task).enumerate().for_each(|(chunk, lanes)| {
            for (word, packed) in lanes.iter_mut().enumerate() {
                let first = (chunk * task + word) * per_word;
                let elements = first.min(n)..(first + per_word).min(n);
                *packed = elements.rev().fold(0, |packed, i| {
                    // All lanes of the word before this one move up.
                    packed.checked_shl(p.bits).unwrap_or(0) | (code_at(codes, i) + 1) as u32
                });
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
}
