//! Codes in lanes for secure aggregation. A word of lanes takes a few codes in a row, wherever
//! they start in the words of codes: both ways bytes are brought to where they are needed, and
//! then bits.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::Arg;
use tern_shaders::kernels::ternary::{CODES, DecodeLanes, EncodeLanes};

use super::super::isa::with_vectors;
use super::super::mixed::{get, set};
use super::super::vector::{MAX_LANES, lanes, load};
use super::{CHUNK, parts};

/// Bits of a code.
const BITS: u32 = 2;
/// The lower bit of each code of a word.
const LOW: u32 = 0x5555_5555;
/// Codes of four fill a byte.
const CODES_A_BYTE: usize = 4;

pub(super) fn encode_lanes(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &EncodeLanes = bytemuck::from_bytes(p);
    let [codes, lanes] = args else { unreachable!("bindings were checked") };
    let (n, words) = (p.n as usize, p.words as usize);
    let codes = codes.word();
    let layout = Layout::new(p.bits);
    let lanes = &mut lanes.word_mut()[..replicas * words];
    for (r, lanes) in lanes.chunks_mut(words).enumerate() {
        let codes = bytemuck::cast_slice(&codes[r * n / CODES..][..n / CODES]);
        lanes.par_chunks_mut(CHUNK).enumerate().for_each(|(task, lanes)| {
            with_vectors!(s => layout.encode(s, codes, task * CHUNK, lanes));
        });
    }
}

/// Some codes of a word that go up, by as much as their lanes are wider for a power of two of
/// them.
#[derive(Clone, Copy, Default)]
struct Step {
    moved: u32,
    by: u32,
}

/// How codes that lie side by side become lanes.
struct Layout {
    /// Lanes of a word.
    count: usize,
    /// From eight lanes to one.
    steps: [Step; 4],
}

impl Layout {
    /// Lanes of `bits` bits, at least those of a code.
    fn new(bits: u32) -> Self {
        let count = 32 / bits;
        let mut steps = [Step::default(); 4];
        // Lanes whose number has the step's bit go up together; those in larger steps have.
        for (step, by) in steps.iter_mut().zip([8u32, 4, 2, 1]) {
            step.by = by * (bits - BITS);
            for lane in (0..count).filter(|lane| lane & by != 0) {
                let gone = lane & !(2 * by - 1);
                step.moved |= 3u32 << (BITS * lane + gone * (bits - BITS));
            }
        }
        Layout { count: count as usize, steps }
    }

    /// The words of lanes from word `first` on. `codes` are the bytes of all of them.
    #[inline(always)]
    fn encode<S: Simd>(&self, s: S, codes: &[u8], first: usize, out: &mut [u32]) {
        let (width, n) = (lanes::<S>(), codes.len() * CODES_A_BYTE);
        // A vector starts at a whole byte, since its words are a multiple of four; a word within
        // it where its codes do.
        let codes_before = S::u32s::from_fn(
            s,
            #[inline(always)]
            |word| word as u32,
        ) * self.count as u32;
        let from: S::u8s = ((codes_before >> 2) * 0x0101_0101 + 0x0302_0100).bitcast();
        let shift = (codes_before & 3) * BITS;
        let own = u32::MAX >> (32 - BITS * self.count as u32);
        for (vector, out) in out.chunks_mut(width).enumerate() {
            let word = first + vector * width;
            let bytes = codes.get(word * self.count / CODES_A_BYTE..).unwrap_or_default();
            let bytes: S::u8s = load_bytes(s, bytes);
            let codes: S::u32s = bytes.swizzle_dyn(from).bitcast();
            let mut codes = code_plus_one::<S>(codes >> shift) & own;
            if (word + width) * self.count > n {
                codes &= self.within(s, word, n);
            }
            let packed = self.spread::<S>(codes);
            set(out, out.len(), packed);
        }
    }

    /// The bits of the codes that words from `word` on have, of `n` codes in all.
    #[inline(always)]
    fn within<S: Simd>(&self, s: S, word: usize, n: usize) -> S::u32s {
        S::u32s::from_fn(
            s,
            #[inline(always)]
            |lane| {
                let own = n.saturating_sub((word + lane) * self.count).min(self.count);
                ((1u64 << (BITS as usize * own)) - 1) as u32
            },
        )
    }

    /// Codes side by side to lanes.
    #[inline(always)]
    fn spread<S: Simd>(&self, mut codes: S::u32s) -> S::u32s {
        for step in self.steps {
            if step.moved != 0 {
                codes = (codes & !step.moved) | ((codes & step.moved) << step.by);
            }
        }
        codes
    }
}

/// The vector at the start of some bytes, padded by zeros.
#[inline(always)]
fn load_bytes<S: Simd>(s: S, bytes: &[u8]) -> S::u8s {
    if bytes.len() >= S::u8s::LEN {
        return load(s, bytes);
    }
    let mut padded = [0; 4 * MAX_LANES];
    padded[..bytes.len()].copy_from_slice(bytes);
    load(s, &padded)
}

/// 1 for 0, 2 for +1, which is code 1, and 0 for −1, which is code 2; 1 for code 3, too.
#[inline(always)]
fn code_plus_one<S: Simd>(codes: S::u32s) -> S::u32s {
    let (low, high) = (codes & LOW, (codes >> 1) & LOW);
    let two = low & !high;
    ((low ^ high) ^ LOW) | (two << 1)
}

pub(super) fn decode_lanes(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &DecodeLanes = bytemuck::from_bytes(p);
    let [lanes, segments, scales, mean] = args else { unreachable!("bindings were checked") };
    let (n, words) = (p.n as usize, p.words as usize);
    let (lanes, scales) = (lanes.word(), scales.real());
    let segments = &segments.word()[..=p.tensors as usize];
    for (r, mean) in mean.real_mut().chunks_mut(p.stride as usize).take(replicas).enumerate() {
        let lanes = &lanes[r * words..][..words];
        mean[..n].par_chunks_mut(CHUNK).enumerate().for_each(|(task, mean)| {
            let first = task * CHUNK;
            for (tensor, part) in parts(segments, first..first + mean.len()) {
                let step = p.weight * scales[r * p.scales_stride as usize + tensor];
                let mean = &mut mean[part.start - first..part.end - first];
                with_vectors!(s => decode(s, p, lanes, part.start, step, mean));
            }
        });
    }
}

/// mean (+)= step · (lane − clients), of the elements from `first` on.
#[inline(always)]
fn decode<S: Simd>(
    s: S,
    p: &DecodeLanes,
    words: &[u32],
    first: usize,
    step: f32,
    mean: &mut [f32],
) {
    let count = 32 / p.bits;
    let lane = S::u32s::from_fn(
        s,
        #[inline(always)]
        |lane| lane as u32,
    );
    let each = count as usize;
    let (mut word, mut place) = (first / each, first % each);
    for mean in mean.chunks_mut(lanes::<S>()) {
        let rest = &words[word..];
        let own: S::u32s = get(s, rest, rest.len().min(lanes::<S>()));
        let places = lane + place as u32;
        // Places are below 64: the quotient is exact.
        let from = (places * 4096u32.div_ceil(count)) >> 12;
        let shift = (places - from * count) * p.bits;
        // The bytes of a word, the first lowest.
        let bytes: S::u8s = (from * 0x0404_0404 + 0x0302_0100).bitcast();
        let sum = (own.swizzle_dyn(bytes) >> shift) & ((1 << p.bits) - 1);
        let code: S::i32s = (sum - p.clients).bitcast();
        let value = code.to_float::<S::f32s>() * step;
        let n = mean.len();
        let value = if p.accumulate != 0 { get::<S, S::f32s>(s, mean, n) + value } else { value };
        set(mean, n, value);
        word += lanes::<S>() / each;
        place += lanes::<S>() % each;
        if place >= each {
            (word, place) = (word + 1, place - each);
        }
    }
}

#[cfg(test)]
mod tests {
    use tern_shaders::kernels::ternary::{decode_lanes, encode_lanes, lane_words};

    use super::super::super::isa::Isa;
    use super::*;

    /// Words of many bits.
    fn random(n: usize) -> Vec<u32> {
        (0..n as u32).map(|i| i.wrapping_mul(0x9e37_79b9) ^ i << 13).collect()
    }

    #[test]
    fn every_instruction_set_encodes_lanes_of_any_width() {
        for bits in 2..=32 {
            for n in [16, 64, 336] {
                let codes = random(n / CODES);
                let words = lane_words(n, bits);
                let p = EncodeLanes { n: n as u32, words: words as u32, bits };
                let mut expected = vec![9; words];
                encode_lanes::<f32>(&p, 1, &codes, &mut expected);
                let layout = Layout::new(bits);
                let codes = bytemuck::cast_slice(&codes);
                for isa in Isa::available() {
                    // From a word on that isn't the first.
                    for first in [0, 16.min(words / 2)] {
                        let mut found = vec![7; words - first];
                        with_vectors!(isa.level().unwrap(), s => {
                            layout.encode(s, codes, first, &mut found)
                        });
                        assert_eq!(found, expected[first..], "{isa} {bits} {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_decodes_lanes_of_any_width() {
        for bits in 1..=31 {
            for (n, first, accumulate) in [(16, 0, 0), (80, 0, 1), (400, 64, 0)] {
                let words = lane_words(n, bits);
                let p = DecodeLanes {
                    n: n as u32,
                    stride: n as u32,
                    words: words as u32,
                    bits,
                    tensors: 1,
                    scales_stride: 0,
                    clients: 3,
                    weight: 0.3,
                    accumulate,
                };
                let lanes = random(words);
                let mut expected = vec![0.5; n];
                decode_lanes(&p, 1, &lanes, &[0, n as u32], &[0.7], &mut expected);
                for isa in Isa::available() {
                    let mut mean = vec![0.5; n - first];
                    with_vectors!(isa.level().unwrap(), s => {
                        decode(s, &p, &lanes, first, 0.3 * 0.7, &mut mean)
                    });
                    assert_eq!(mean, expected[first..], "{isa} {bits} {n}");
                }
            }
        }
    }
}
