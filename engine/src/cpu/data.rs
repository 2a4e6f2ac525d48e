//! Batches gathered from data sets: rows as a whole, what is turned in blocks, and the keyed
//! permutation for many samples at once.

use std::ops::Range;

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::data::{NONE, Rows, Select, Stream, Windows, Words};
use tern_shaders::{Arg, ReferenceFn, state};

use super::embedding::gather_rows;
use super::isa::with_vectors;
use super::parallel::{by_replica, rows};
use super::planes::{Layout, NARROW, PART, cut, parts_of_columns, take_apart, transpose};
use super::random::pcg4d;
use super::vector::{inlined, lanes, load, store};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("data/select", select),
    ("data/rows", samples),
    ("data/words", words),
    ("data/windows", windows),
    ("data/stream", stream),
];

/// Samples that are permuted together.
const TOGETHER: usize = 256;

/// The bijection of `[0, count)` by which a key shuffles.
struct Permutation {
    count: u32,
    key: [u32; 2],
}

impl Permutation {
    /// One walk of the Feistel network for each number, whole vectors of them.
    #[inline(always)]
    fn walk<S: Simd>(&self, s: S, numbers: &mut [u32]) {
        let word = inlined(
            #[inline(always)]
            |word: u32| S::u32s::splat(s, word),
        );
        let bits = (32 - (self.count - 1).leading_zeros()).max(2);
        let low_bits = bits / 2;
        let (low_mask, high_mask) = (word((1 << low_bits) - 1), word((1 << (bits - low_bits)) - 1));
        let [first, second] = self.key;
        let hash = inlined(
            #[inline(always)]
            |half: S::u32s, round: u32| {
                let key = [half, word(round), word(first), word(second)];
                pcg4d::<S>(key)[0] >> 16
            },
        );
        for numbers in numbers.chunks_exact_mut(lanes::<S>()) {
            let x: S::u32s = load(s, numbers);
            let (mut high, mut low) = (x >> low_bits, x & low_mask);
            for round in (0..6).step_by(2) {
                high ^= hash(low, round) & high_mask;
                low ^= hash(high, round + 1) & low_mask;
            }
            store(numbers, (high << low_bits) | low);
        }
    }

    /// Permutes a block of numbers: those that a walk leads outside walk again, together.
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, numbers: &mut [u32]) {
        let mut walking = [0; TOGETHER];
        let mut places = [0; TOGETHER];
        let mut count = numbers.len();
        walking[..count].copy_from_slice(numbers);
        (0..count).for_each(|place| places[place] = place);
        // The reference walks so often at most.
        for _ in 0..256 {
            self.walk(s, &mut walking[..count.next_multiple_of(lanes::<S>())]);
            let mut outside = 0;
            for i in 0..count {
                let (x, place) = (walking[i], places[i]);
                numbers[place] = x.min(self.count - 1);
                walking[outside] = x;
                places[outside] = place;
                outside += usize::from(x >= self.count);
            }
            count = outside;
            if count == 0 {
                break;
            }
        }
    }
}

fn select(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Select = bytemuck::from_bytes(p);
    let [state, index] = args else { unreachable!("two bindings") };
    let (state, index, batch) = (state.word(), index.word_mut(), p.batch as usize);
    for (r, index) in index[..replicas * batch].chunks_exact_mut(batch).enumerate() {
        let record = &state[r * state::WORDS..];
        let count = record[state::COUNT];
        let order = Permutation { count, key: [record[state::SEED], record[state::EPOCH]] };
        let (known, others) =
            index.split_at_mut(batch.min(record[state::ROWS].saturating_sub(p.first) as usize));
        others.fill(NONE);
        rows(known, 1, 32, |first, index| {
            let first = record[state::CURSOR] + p.first + first as u32;
            for (first, index) in (first..).step_by(TOGETHER).zip(index.chunks_mut(TOGETHER)) {
                (first..).zip(&mut *index).for_each(|(sample, index)| *index = sample);
                if p.shuffle != 0 {
                    with_vectors!(s => order.of(s, index));
                }
                index.iter_mut().for_each(|index| *index += record[state::BASE]);
            }
        });
    }
}

/// Where the sample of a number starts, unless there is none.
fn place(index: u32, samples: u32, width: usize) -> Option<usize> {
    (index != NONE).then(|| index.min(samples - 1) as usize * width)
}

fn samples(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rows = bytemuck::from_bytes(p);
    let [source, index, x] = args else { unreachable!("three bindings") };
    let (source, index, width) = (source.real(), index.word(), p.width as usize);
    let x = &mut x.real_mut()[..replicas * p.batch as usize * width];
    rows(x, width, width, |first, x| {
        let row = |i: usize| place(index[first + i], p.samples, width);
        gather_rows(source, width, 0.0, row, x);
    });
}

fn words(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Words = bytemuck::from_bytes(p);
    let [source, index, x] = args else { unreachable!("three bindings") };
    let (source, index) = (source.word(), index.word());
    let (batch, width) = (p.batch as usize, p.width as usize);
    let x = &mut x.word_mut()[..replicas * batch * width];
    // Vectors move floats; their bits stay.
    let (floats, filler): (&[f32], _) = (bytemuck::cast_slice(source), f32::from_bits(p.padding));
    if p.time_major == 0 {
        rows(bytemuck::cast_slice_mut(x), width, width, |first, x| {
            let row = |i: usize| place(index[first + i], p.samples, width);
            gather_rows(floats, width, filler, row, x);
        });
        return;
    }
    if width <= NARROW && batch > PART {
        for (r, x) in x.chunks_exact_mut(batch * width).enumerate() {
            parts_of_columns(bytemuck::cast_slice_mut(x), batch, |first, columns| {
                let row = |i: usize| place(index[r * batch + first + i], p.samples, width);
                let mut samples = vec![0.0; columns[0].len() * width];
                gather_rows(floats, width, filler, row, &mut samples);
                with_vectors!(s => take_apart(s, &samples, columns, false));
            });
        }
        return;
    }
    rows(x, batch, 2 * batch, |first, x| {
        by_replica(first, x.len() / batch, width, |r, run| {
            let x = &mut x[run.start * batch..run.end * batch];
            let start = first + run.start - r * width;
            let mut tile = NO_TILE;
            for (columns, lines) in blocks(batch, run.len()) {
                for (line, b) in tile.chunks_exact_mut(BLOCK).zip(columns.clone()) {
                    let line = &mut line[..lines.len()];
                    match place(index[r * batch + b], p.samples, width) {
                        None => line.fill(p.padding),
                        Some(from) => {
                            let from = from + start + lines.start;
                            line.copy_from_slice(&source[from..][..line.len()]);
                        }
                    }
                }
                turn(&tile, columns, lines, batch, x);
            }
        });
    });
}

/// Columns, and elements of each, that are turned together.
const BLOCK: usize = 64;

/// A line a column.
type Tile = [u32; BLOCK * BLOCK];
const NO_TILE: Tile = [0; BLOCK * BLOCK];

/// Blocks of columns and lines.
fn blocks(columns: usize, lines: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let cut = |n: usize| (0..n).step_by(BLOCK).map(move |at| at..n.min(at + BLOCK));
    cut(lines).flat_map(move |lines| cut(columns).map(move |columns| (columns, lines.clone())))
}

/// Writes a tile to its place in `[lines, width]`.
fn turn(tile: &Tile, columns: Range<usize>, lines: Range<usize>, width: usize, out: &mut [u32]) {
    let at = Layout {
        rows: columns.len(),
        columns: lines.len(),
        from: BLOCK,
        to: width,
        accumulate: false,
    };
    // Vectors move floats; their bits stay.
    let (tile, out) = (bytemuck::cast_slice(tile), bytemuck::cast_slice_mut(out));
    let out = &mut out[lines.start * width + columns.start..];
    with_vectors!(s => transpose(s, at, tile, out));
}

/// A text, packed or not.
#[derive(Clone, Copy)]
struct Text<'a> {
    tokens: &'a [u32],
    length: usize,
    packed: bool,
}

impl Text<'_> {
    /// Tokens from a place on; past the end, the last one.
    fn read(&self, from: usize, to: &mut [u32]) {
        let known = self.length.saturating_sub(from).min(to.len());
        let token = |at: usize| {
            if self.packed {
                (self.tokens[at / 4] >> (8 * (at % 4))) & 255
            } else {
                self.tokens[at]
            }
        };
        let (inside, past) = to.split_at_mut(known);
        if self.packed && cfg!(target_endian = "little") {
            // A word's lowest byte, the first token, comes first.
            let bytes: &[u8] = bytemuck::cast_slice(self.tokens);
            let bytes = bytes.get(from..).unwrap_or_default();
            inside.iter_mut().zip(bytes).for_each(|(to, byte)| *to = u32::from(*byte));
        } else if self.packed {
            inside.iter_mut().enumerate().for_each(|(i, to)| *to = token(from + i));
        } else if known > 0 {
            inside.copy_from_slice(&self.tokens[from..][..known]);
        }
        past.fill(token(self.length - 1));
    }
}

/// Columns that one thread takes: each window is read once.
const COLUMNS: usize = 8 * BLOCK;

/// Some columns of a replica's inputs and targets, a slice a step.
struct Part<'a> {
    replica: usize,
    first: usize,
    inputs: Vec<&'a mut [u32]>,
    targets: Vec<&'a mut [u32]>,
}

/// Cuts inputs and targets `[R, steps, batch]` into parts.
fn parts<'a>(
    steps: usize,
    batch: usize,
    inputs: &'a mut [u32],
    targets: &'a mut [u32],
) -> Vec<Part<'a>> {
    let replicas = inputs.chunks_exact_mut(steps * batch);
    let replicas = replicas.zip(targets.chunks_exact_mut(steps * batch)).enumerate();
    let parts = replicas.flat_map(|(replica, (inputs, targets))| {
        let parts = cut(inputs, batch, COLUMNS).into_iter().zip(cut(targets, batch, COLUMNS));
        let part =
            move |(i, (inputs, targets))| Part { replica, first: i * COLUMNS, inputs, targets };
        parts.enumerate().map(part)
    });
    parts.collect()
}

/// Writes a tile's columns to these of the lines.
fn spread(tile: &Tile, columns: Range<usize>, lines: &mut [&mut [u32]]) {
    let mut turned = NO_TILE;
    turn(tile, 0..columns.len(), 0..lines.len(), BLOCK, &mut turned);
    for (line, turned) in lines.iter_mut().zip(turned.chunks_exact(BLOCK)) {
        line[columns.clone()].copy_from_slice(&turned[..columns.len()]);
    }
}

/// Inputs and targets `[R, steps, batch]`: `window` says, for a replica and a row of its batch,
/// where the text that it reads starts and how long that is.
fn read(
    text: Text<'_>,
    (steps, batch): (usize, usize),
    padding: u32,
    window: impl Fn(usize, usize) -> (usize, usize) + Sync,
    inputs: &mut [u32],
    targets: &mut [u32],
) {
    let fill = |part: &mut Part<'_>| {
        let Part { replica, first, inputs, targets } = part;
        let mut tiles = [NO_TILE; 2];
        let mut tokens = [0; BLOCK + 1];
        let width = inputs.first().map_or(0, |line| line.len());
        for (columns, lines) in blocks(width, steps) {
            let [given, next] = &mut tiles;
            let all = given.chunks_exact_mut(BLOCK).zip(next.chunks_exact_mut(BLOCK));
            for ((given, next), b) in all.zip(columns.clone()) {
                let (n, (from, len)) = (lines.len(), window(*replica, *first + b));
                // Tokens of the window from here on.
                let left = len.saturating_sub(lines.start);
                let known = left.min(n + 1);
                if known > 0 {
                    text.read(from + lines.start, &mut tokens[..known]);
                }
                let inside = known.min(n);
                given[..inside].copy_from_slice(&tokens[..inside]);
                given[inside..n].fill(padding);
                let inside = known.saturating_sub(1);
                next[..inside].copy_from_slice(&tokens[1..][..inside]);
                next[inside..n].fill(NONE);
            }
            spread(given, columns.clone(), &mut inputs[lines.clone()]);
            spread(next, columns, &mut targets[lines]);
        }
    };
    let mut parts = parts(steps, batch, inputs, targets);
    match &mut parts[..] {
        [part] => fill(part),
        parts => parts.par_iter_mut().for_each(fill),
    }
}

fn windows(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Windows = bytemuck::from_bytes(p);
    let [tokens, starts, lens, index, inputs, targets] = args else { unreachable!("six bindings") };
    let (starts, lens, index) = (starts.word(), lens.word(), index.word());
    let (steps, batch) = (p.steps as usize, p.batch as usize);
    let n = replicas * steps * batch;
    let text = Text { tokens: tokens.word(), length: p.length as usize, packed: p.packed != 0 };
    let window = |r: usize, b: usize| match place(index[r * batch + b], p.samples, 1) {
        None => (0, 0),
        Some(sample) => (starts[sample] as usize, lens[sample] as usize),
    };
    let (inputs, targets) = (&mut inputs.word_mut()[..n], &mut targets.word_mut()[..n]);
    read(text, (steps, batch), p.padding, window, inputs, targets);
}

fn stream(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Stream = bytemuck::from_bytes(p);
    let [tokens, state, inputs, targets] = args else { unreachable!("four bindings") };
    let (state, steps, batch) = (state.word(), p.steps as usize, p.batch as usize);
    let n = replicas * steps * batch;
    let text = Text { tokens: tokens.word(), length: p.length as usize, packed: p.packed != 0 };
    let window = |r: usize, b: usize| {
        let record = &state[r * state::WORDS..];
        let part = b * record[state::COUNT] as usize + record[state::CURSOR] as usize;
        let known = b < record[state::ROWS] as usize;
        // The token after the last step is a target, too.
        (record[state::BASE] as usize + part * steps, if known { steps + 1 } else { 0 })
    };
    let (inputs, targets) = (&mut inputs.word_mut()[..n], &mut targets.word_mut()[..n]);
    read(text, (steps, batch), p.padding, window, inputs, targets);
}
