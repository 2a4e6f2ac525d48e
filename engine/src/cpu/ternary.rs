//! Fast ternary codes: tasks of whole words.

mod lanes;
mod moments;

use std::ops::Range;

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::ternary::{CODES, DecodeAccumulate, Quantize};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::mixed::in_turn;
use super::random::pcg4d;
use super::vector::{inlined, lanes, load, splat, store};

pub(super) static TABLE: super::Table = &[
    ("ternary/moments", moments::moments as ReferenceFn<f32>),
    ("ternary/quantize", quantize),
    ("ternary/decode_accumulate", decode_accumulate),
    ("ternary/encode_lanes", lanes::encode_lanes),
    ("ternary/decode_lanes", lanes::decode_lanes),
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

/// A number, or 0 for what is not finite.
#[inline(always)]
fn finite_or_zero<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let exponent = x.bitcast::<S::u32s>() & 0x7f80_0000;
    exponent.simd_eq(0x7f80_0000).select(splat(s, 0.0), x)
}

/// A number, or 0 for one that is smaller than every normal number.
#[inline(always)]
fn normal_or_zero<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let exponent = x.bitcast::<S::u32s>() & 0x7f80_0000;
    exponent.simd_eq(0).select(splat(s, 0.0), x)
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
                let first = part.start / CODES;
                with_vectors!(s => rule.words(s, first, codes, &x[part], residual));
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

/// Vectors of words that are drawn at a time, and of elements that take them.
const DRAWS: usize = 4;

impl Rule<'_> {
    /// The codes of `x` from word `first` on; `residual` is empty without feedback.
    #[inline(always)]
    fn words<S: Simd>(
        &self,
        s: S,
        first: usize,
        codes: &mut [u32],
        x: &[f32],
        residual: &mut [f32],
    ) {
        let drawn = self.scale != 0.0 && self.p.threshold == 0;
        match (drawn, residual.is_empty()) {
            (true, true) => self.code::<S, true, false>(s, first, codes, x, residual),
            (true, false) => self.code::<S, true, true>(s, first, codes, x, residual),
            (false, true) => self.code::<S, false, false>(s, first, codes, x, residual),
            (false, false) => self.code::<S, false, true>(s, first, codes, x, residual),
        }
    }

    #[inline(always)]
    fn code<S: Simd, const DRAWN: bool, const FEEDBACK: bool>(
        &self,
        s: S,
        first: usize,
        codes: &mut [u32],
        x: &[f32],
        residual: &mut [f32],
    ) {
        let width = lanes::<S>();
        // Words that a draw is for, vectors that a word is of.
        let (words, vectors) = (DRAWS * width / CODES, CODES / width);
        let fixed = if self.scale == 0.0 { f32::INFINITY } else { self.threshold };
        let mut bounds = [splat(s, fixed); DRAWS];
        let (zero, scale) = (splat(s, 0.0), splat(s, self.scale));
        let plus = S::u32s::from_fn(
            s,
            #[inline(always)]
            |lane| 1 << (2 * lane),
        );
        for (group, codes) in codes.chunks_mut(words).enumerate() {
            if DRAWN {
                bounds = self.bounds(s, first + group * words);
            }
            for (word, code) in codes.iter_mut().enumerate() {
                let mut packed = S::u32s::splat(s, 0);
                for part in 0..vectors {
                    let at = (group * words + word) * CODES + part * width;
                    let mut v = normal_or_zero(s, load(s, &x[at..]));
                    if FEEDBACK {
                        let left = normal_or_zero(s, load(s, &residual[at..]));
                        v = normal_or_zero(s, v + left);
                    }
                    let v = finite_or_zero(s, v);
                    let fires = v.abs().simd_gt(bounds[word * vectors + part]);
                    let negative = v.simd_lt(zero);
                    if FEEDBACK {
                        let decoded = fires.select(negative.select(-scale, scale), zero);
                        store(&mut residual[at..], normal_or_zero(s, v - decoded));
                    }
                    let code = negative.select(plus << 1, plus) << (2 * part * width) as u32;
                    packed |= fires.select(code, S::u32s::splat(s, 0));
                }
                *code = packed.reduce_sum();
            }
        }
    }

    /// What the elements from word `word` on fire above: draws of four, a draw a lane.
    #[inline(always)]
    fn bounds<S: Simd>(&self, s: S, word: usize) -> [S::f32s; DRAWS] {
        let draw = S::u32s::from_fn(
            s,
            #[inline(always)]
            |lane| lane as u32,
        );
        let same = inlined(
            #[inline(always)]
            |word| S::u32s::splat(s, word),
        );
        let p = self.p;
        let random = in_turn::<S, _, DRAWS>(pcg4d::<S>([
            draw + (word * CODES / DRAWS) as u32,
            same(p.step),
            same(p.salt.wrapping_add(self.r)),
            same(p.seed),
        ]));
        let mut bounds = [splat(s, 0.0); DRAWS];
        for (bound, bits) in bounds.iter_mut().zip(random) {
            // As `random::uniform`; 24 bits are as well signed.
            let bits: S::i32s = (bits >> 8).bitcast();
            *bound = bits.to_float::<S::f32s>() * (1.0 / 16_777_216.0) * self.scale;
        }
        bounds
    }
}

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
                    with_vectors!(s => add_codes(s, codes, step, sum));
                }
            }
        });
    }
}

/// sum += step · code. Shapes: `codes` `[n / 16]`, `sum` `[n]`.
#[inline(always)]
fn add_codes<S: Simd>(s: S, codes: &[u32], step: f32, sum: &mut [f32]) {
    let width = lanes::<S>();
    let (zero, one, step) = (splat(s, 0.0), splat(s, 1.0), splat(s, step));
    let bit = inlined(
        #[inline(always)]
        |part: usize, bit: usize| {
            S::u32s::from_fn(
                s,
                #[inline(always)]
                |lane| 1u32.unbounded_shl((2 * (part * width + lane) + bit) as u32),
            )
        },
    );
    // Of four vectors of a word at most.
    let plus = [bit(0, 0), bit(1, 0), bit(2, 0), bit(3, 0)];
    let minus = [bit(0, 1), bit(1, 1), bit(2, 1), bit(3, 1)];
    for (sum, word) in sum.chunks_exact_mut(CODES).zip(codes) {
        let word = S::u32s::splat(s, *word);
        let is = inlined(
            #[inline(always)]
            |bits: S::u32s| (word & bits).simd_eq(0).select(zero, one),
        );
        for part in 0..CODES / width {
            let sum = &mut sum[part * width..];
            let code = is(plus[part]) - is(minus[part]);
            let total = load::<S, S::f32s>(s, sum) + code * step;
            store(sum, total);
        }
    }
}

#[cfg(test)]
mod tests {
    use tern_shaders::kernels::ternary::{decode_accumulate, quantize};

    use super::super::isa::Isa;
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

    /// Numbers of many sizes, some not finite, some zero.
    fn numbers(n: usize) -> Vec<f32> {
        (0..n as u32)
            .map(|i| match i % 11 {
                3 => f32::NAN,
                5 => f32::NEG_INFINITY,
                7 => -0.0,
                _ => (i as f32 * 0.7).sin(),
            })
            .collect()
    }

    #[test]
    fn every_instruction_set_gives_the_references_codes() {
        // Five words: the last has part of the draws to itself.
        let (n, before) = (5 * CODES, 64);
        for (feedback, threshold, scale) in
            [(0, 0, 0.8), (1, 0, 0.8), (1, 1, 0.5), (0, 1, 0.0), (1, 0, 0.0)]
        {
            let all = (before + n) as u32;
            let p = Quantize {
                n: all,
                stride: all,
                tensors: 1,
                scales_stride: 0,
                threshold,
                feedback,
                step: 3,
                salt: 4,
                seed: 8,
            };
            let x = numbers(before + n);
            let start = vec![0.1; before + n];
            let (mut left, mut expected) = (start.clone(), vec![0; (before + n) / CODES]);
            quantize(&p, 1, &x, &mut left, &[0, all], &[scale], &[0.4], &mut expected);
            let rule = Rule { p: &p, r: 0, scale, threshold: 0.4 };
            for isa in Isa::available() {
                let mut codes = [9; 5];
                let mut residual = start[..feedback as usize * n].to_vec();
                with_vectors!(isa.level().unwrap(), s => {
                    rule.words(s, before / CODES, &mut codes, &x[before..], &mut residual)
                });
                assert_eq!(codes, expected[before / CODES..], "{isa} {p:?}");
                let left = &left[before..][..residual.len()];
                assert_eq!(residual, left, "{isa} {p:?}");
            }
        }
    }

    #[test]
    fn every_instruction_set_adds_all_codes() {
        let codes = [0x1b1b_e4e4, 0xffff_0000, 0x5555_aaaa];
        let p =
            DecodeAccumulate { n: 48, stride: 48, tensors: 1, clients: 1, ..Default::default() };
        let p = DecodeAccumulate { accumulate: 1, ..p };
        let before = numbers(48).into_iter().map(|x| if x.is_nan() { 1.0 } else { x });
        let before: Vec<f32> = before.collect();
        let mut expected = before.clone();
        decode_accumulate(&p, 1, &codes, &[0, 48], &[0.3], &[0.7], &mut expected);
        for isa in Isa::available() {
            let mut sum = before.clone();
            with_vectors!(isa.level().unwrap(), s => add_codes(s, &codes, 0.3 * 0.7, &mut sum));
            assert_eq!(sum, expected, "{isa}");
        }
    }
}
