//! Batches gathered on the device from data sets that stay there.
//!
//! [`SELECT`] names the samples of each replica's batch; [`ROWS`], [`WORDS`] and [`WINDOWS`]
//! gather them; [`STREAM`] reads long text in order and needs no selection, and [`RESTART`] forgets
//! what a model carries along where that text starts over.
//!
//! ```rust
//! use tern_shaders::kernels::data::{NONE, Select, select};
//! use tern_shaders::schedule::Schedule;
//! use tern_shaders::state::{CURSOR, ROWS, StateRecord};
//!
//! // Samples 10 to 13 in batches of 3.
//! let mut record = StateRecord::new(7, 10..14, 3, 100, &Schedule::constant(0.1));
//! let (p, mut index) = (Select { batch: 3, first: 0, shuffle: 0 }, [0; 3]);
//! select::<f32>(&p, 1, &record[..], &mut index);
//! assert_eq!(index, [10, 11, 12]);
//! // The second batch of the epoch has one sample.
//! (record[CURSOR], record[ROWS]) = (3, 1);
//! select::<f32>(&p, 1, &record[..], &mut index);
//! assert_eq!(index, [13, NONE, NONE]);
//! ```

use crate::kernels::random::pcg4d;
use crate::state;
use crate::{AnyKernel, Real, kernel, linear_grid, params};

/// An index that selects no sample, and a target that the losses ignore.
pub const NONE: u32 = u32::MAX;

params!(
    /// Parameters of [`SELECT`].
    Select {
        /// Rows of a full batch, or of a part of one.
        batch: u32,
        /// Row of the batch that is the part's first; 0 for a whole batch.
        first: u32,
        /// 1: the order of an epoch is a permutation by seed and epoch; 0: as stored.
        shuffle: u32,
    }
);

params!(
    /// Parameters of [`ROWS`].
    Rows {
        /// Rows of a full batch.
        batch: u32,
        /// Floats a sample.
        width: u32,
        /// Samples of the data set, at least one.
        samples: u32,
    }
);

params!(
    /// Parameters of [`WORDS`].
    Words {
        /// Rows of a full batch.
        batch: u32,
        /// Words a sample.
        width: u32,
        /// Samples of the data set, at least one.
        samples: u32,
        /// What rows without a sample hold.
        padding: u32,
        /// 1 writes `[width, batch]`, 0 `[batch, width]`.
        time_major: u32,
    }
);

params!(
    /// Parameters of [`WINDOWS`].
    Windows {
        /// Rows of a full batch.
        batch: u32,
        /// Tokens a row.
        steps: u32,
        /// Tokens of the text, at least one.
        length: u32,
        /// Samples of the data set, at least one.
        samples: u32,
        /// What inputs past a window's end hold.
        padding: u32,
        /// 1: four tokens below 256 a word, the first in the lowest byte; 0: one a word.
        packed: u32,
    }
);

params!(
    /// Parameters of [`STREAM`].
    Stream {
        /// Rows of a full batch: parts that the text is cut into.
        batch: u32,
        /// Tokens a row.
        steps: u32,
        /// Tokens of the text, at least one.
        length: u32,
        /// What the inputs of rows past the batch's hold.
        padding: u32,
        /// 1: four tokens below 256 a word, the first in the lowest byte; 0: one a word.
        packed: u32,
    }
);

params!(
    /// Parameters of [`RESTART`].
    Restart {
        /// Elements of a replica.
        n: u32,
    }
);

/// A bijection of `[0, count)` for each key: a Feistel network on the smallest power of two
/// that holds `count`, walked again while it leads outside (Black and Rogaway, "Ciphers with
/// Arbitrary Finite Domains", CT-RSA 2002). Needs `i < count`.
pub fn permute(i: u32, count: u32, key: [u32; 2]) -> u32 {
    let bits = (32 - (count - 1).leading_zeros()).max(2);
    let low_bits = bits / 2;
    let low_mask = (1 << low_bits) - 1;
    let high_mask = (1 << (bits - low_bits)) - 1;
    let mut x = i;
    for _ in 0..256 {
        let (mut high, mut low) = (x >> low_bits, x & low_mask);
        for round in (0..6).step_by(2) {
            high ^= (pcg4d([low, round, key[0], key[1]])[0] >> 16) & high_mask;
            low ^= (pcg4d([high, round + 1, key[0], key[1]])[0] >> 16) & low_mask;
        }
        x = (high << low_bits) | low;
        if x < count {
            break;
        }
    }
    x.min(count - 1)
}

fn token(tokens: &[u32], length: u32, packed: u32, position: u32) -> u32 {
    let at = position.min(length - 1);
    if packed != 0 {
        (tokens[at as usize / 4] >> (8 * (at % 4))) & 255
    } else {
        tokens[at as usize]
    }
}

/// `index[b] = base + permutation(cursor + first + b)`, [`NONE`] for rows of a short batch without a
/// sample. Shapes: `state` `[R, 64]`, `index` `[R, batch]`.
pub fn select<F: Real>(p: &Select, replicas: usize, state: &[u32], index: &mut [u32]) {
    for r in 0..replicas {
        let record = &state[r * state::WORDS..];
        let key = [record[state::SEED], record[state::EPOCH]];
        for b in 0..p.batch {
            let at = &mut index[r * p.batch as usize + b as usize];
            *at = NONE;
            if p.first + b < record[state::ROWS] {
                let sample = record[state::CURSOR] + p.first + b;
                let sample = if p.shuffle != 0 {
                    permute(sample, record[state::COUNT], key)
                } else {
                    sample
                };
                *at = record[state::BASE] + sample;
            }
        }
    }
}

/// `x[b] = source[index[b]]`, row by row; 0 where there is no sample. Shapes: `source`
/// `[samples, width]`, `index` `[R, batch]`, `x` `[R, batch, width]`.
pub fn rows<F: Real>(p: &Rows, replicas: usize, source: &[F], index: &[u32], x: &mut [F]) {
    let width = p.width as usize;
    for row in 0..replicas * p.batch as usize {
        let from = index[row].min(p.samples - 1) as usize * width;
        for i in 0..width {
            x[row * width + i] = if index[row] == NONE { F::zero() } else { source[from + i] };
        }
    }
}

/// `x[b] = source[index[b]]`, row by row; `padding` where there is no sample. Shapes: `source`
/// `[samples, width]`, `index` `[R, batch]`, `x` `[R, batch, width]` or, time-major,
/// `[R, width, batch]`.
pub fn words<F: Real>(p: &Words, replicas: usize, source: &[u32], index: &[u32], x: &mut [u32]) {
    let (batch, width) = (p.batch as usize, p.width as usize);
    for r in 0..replicas {
        for b in 0..batch {
            let sample = index[r * batch + b];
            let from = sample.min(p.samples - 1) as usize * width;
            for i in 0..width {
                let at = if p.time_major != 0 { i * batch + b } else { b * width + i };
                x[r * batch * width + at] =
                    if sample == NONE { p.padding } else { source[from + i] };
            }
        }
    }
}

/// Text windows: sample s covers the tokens from `starts[s]` on, `lens[s]` of them. The target
/// at t is the token at t + 1, [`NONE`] past the window's end. Shapes: `tokens` `[length]`,
/// packed or not; `starts`, `lens` `[samples]`; `index` `[R, batch]`; `inputs`, `targets`
/// `[R, steps, batch]`.
pub fn windows<F: Real>(
    p: &Windows,
    replicas: usize,
    tokens: &[u32],
    starts: &[u32],
    lens: &[u32],
    index: &[u32],
    inputs: &mut [u32],
    targets: &mut [u32],
) {
    let batch = p.batch as usize;
    for r in 0..replicas {
        for t in 0..p.steps {
            for b in 0..batch {
                let sample = index[r * batch + b];
                let known = sample.min(p.samples - 1) as usize;
                let len = if sample == NONE { 0 } else { lens[known] };
                let position = starts[known] + t;
                let at = (r * p.steps as usize + t as usize) * batch + b;
                let read = |position| token(tokens, p.length, p.packed, position);
                inputs[at] = if t < len { read(position) } else { p.padding };
                targets[at] = if t + 1 < len { read(position + 1) } else { NONE };
            }
        }
    }
}

/// Long text read in order: from the record's base on it is cut into `batch` parts of
/// count · steps tokens, and row b reads `steps` tokens of part b from cursor · steps on.
/// Targets are the next tokens. Shapes: `tokens` `[length]`, packed or not; `state` `[R, 64]`;
/// `inputs`, `targets` `[R, steps, batch]`.
pub fn stream<F: Real>(
    p: &Stream,
    replicas: usize,
    tokens: &[u32],
    state: &[u32],
    inputs: &mut [u32],
    targets: &mut [u32],
) {
    for r in 0..replicas {
        let record = &state[r * state::WORDS..];
        for t in 0..p.steps {
            for b in 0..p.batch {
                let window = b * record[state::COUNT] + record[state::CURSOR];
                let position = record[state::BASE] + window * p.steps + t;
                let valid = b < record[state::ROWS];
                let at = (r * p.steps as usize + t as usize) * p.batch as usize + b as usize;
                let read = |position| token(tokens, p.length, p.packed, position);
                inputs[at] = if valid { read(position) } else { p.padding };
                targets[at] = if valid { read(position + 1) } else { NONE };
            }
        }
    }
}

/// y = x, or 0 where the replica's text starts over. Shapes: `x`, `y` `[R, n]`; `state` `[R, 64]`.
pub fn restart<F: Real>(p: &Restart, replicas: usize, x: &[F], state: &[u32], y: &mut [F]) {
    let n = p.n as usize;
    for r in 0..replicas {
        let over = state[r * state::WORDS + state::CURSOR] == 0;
        for i in r * n..(r + 1) * n {
            y[i] = if over { F::zero() } else { x[i] };
        }
    }
}

kernel! {
    /// Names the samples of the next batch, shuffled by seed and epoch.
    SELECT = "data/select", Select;
    bindings: [state: read u32, index: write u32];
    reference: select::<F>;
    variants: [{
        name: "plain",
        source: "data/select.wgsl",
        preludes: [INDEX, STATE, RANDOM, PERMUTE],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.batch as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Gathers float samples.
    ROWS = "data/rows", Rows;
    bindings: [source: read f32, index: read u32, x: write f32];
    reference: rows;
    variants: [{
        name: "plain",
        source: "data/rows.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.batch as usize * p.width as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Gathers word samples: labels, tokens.
    WORDS = "data/words", Words;
    bindings: [source: read u32, index: read u32, x: write u32];
    reference: words::<F>;
    variants: [{
        name: "plain",
        source: "data/words.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.batch as usize * p.width as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Gathers windows of a text with their next tokens as targets.
    WINDOWS = "data/windows", Windows;
    bindings: [
        tokens: read u32, starts: read u32, lens: read u32, index: read u32,
        inputs: write u32, targets: write u32
    ];
    reference: windows::<F>;
    variants: [{
        name: "plain",
        source: "data/windows.wgsl",
        preludes: [INDEX, TOKEN],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.batch as usize * p.steps as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Reads long text in order, a part a row.
    STREAM = "data/stream", Stream;
    bindings: [tokens: read u32, state: read u32, inputs: write u32, targets: write u32];
    reference: stream::<F>;
    variants: [{
        name: "plain",
        source: "data/stream.wgsl",
        preludes: [INDEX, STATE, TOKEN],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.batch as usize * p.steps as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Starts a carried state anew where long text does.
    RESTART = "data/restart", Restart;
    bindings: [x: read f32, state: read u32, y: write f32];
    reference: restart;
    variants: [{
        name: "plain",
        source: "data/restart.wgsl",
        preludes: [INDEX, STATE],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] =
    &[SELECT.any(), ROWS.any(), WORDS.any(), WINDOWS.any(), STREAM.any(), RESTART.any()];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;
    use crate::state::StateRecord;

    fn record(base: u32, count: u32, batch: u32) -> StateRecord {
        StateRecord::new(7, base..base + count, batch, 100, &Schedule::constant(0.1))
    }

    #[test]
    fn a_shuffle_is_a_permutation_for_every_count() {
        for count in (1..70).chain([127, 128, 129, 1000, 4097]) {
            let mut seen = vec![false; count as usize];
            for i in 0..count {
                let at = permute(i, count, [3, 1]) as usize;
                assert!(!std::mem::replace(&mut seen[at], true), "{at} twice of {count}");
            }
        }
    }

    #[test]
    fn a_shuffle_mixes_and_depends_on_seed_and_epoch() {
        let count = 1000;
        let order = |key| (0..count).map(|i| permute(i, count, key)).collect::<Vec<_>>();
        let (a, b, c) = (order([1, 0]), order([1, 1]), order([2, 0]));
        for (x, y) in [(&a, &b), (&a, &c), (&b, &c)] {
            let same = x.iter().zip(y).filter(|(x, y)| x == y).count();
            // A random pair agrees in one place on average.
            assert!(same < 10, "{same} of {count} places agree");
        }
        // Rank correlation of position and sample: within five standard deviations of 0.
        let n = f64::from(count);
        let mean = (n - 1.0) / 2.0;
        let covariance: f64 =
            a.iter().enumerate().map(|(i, x)| (i as f64 - mean) * (f64::from(*x) - mean)).sum();
        let correlation = covariance / (n * (n * n - 1.0) / 12.0);
        assert!(correlation.abs() < 5.0 / n.sqrt(), "correlation {correlation}");
    }

    #[test]
    fn places_of_a_sample_are_uniform_over_the_epochs() {
        let (count, epochs) = (10, 20_000);
        let mut times = vec![0u32; count as usize];
        for epoch in 0..epochs {
            times[permute(3, count, [5, epoch]) as usize] += 1;
        }
        let mean = f64::from(epochs) / f64::from(count);
        let chi2: f64 = times.iter().map(|t| (f64::from(*t) - mean).powi(2) / mean).sum();
        // 99.99 % of the distribution with 9 degrees of freedom lie below 33.7.
        assert!(chi2 < 33.7, "chi² {chi2}: {times:?}");
    }

    #[test]
    fn an_epoch_of_batches_visits_every_sample_of_the_part_once() {
        let mut state = record(20, 10, 4);
        let mut seen = Vec::new();
        for (cursor, rows) in [(0, 4), (4, 4), (8, 2)] {
            (state[state::CURSOR], state[state::ROWS]) = (cursor, rows);
            let mut index = [0; 4];
            select::<f32>(&Select { batch: 4, first: 0, shuffle: 1 }, 1, &*state, &mut index);
            assert!(index[rows as usize..].iter().all(|i| *i == NONE));
            seen.extend_from_slice(&index[..rows as usize]);
        }
        assert_ne!(seen, (20..30).collect::<Vec<_>>());
        seen.sort_unstable();
        assert_eq!(seen, (20..30).collect::<Vec<_>>());
        let mut index = [0; 4];
        select::<f32>(&Select { batch: 4, first: 0, shuffle: 0 }, 1, &*state, &mut index);
        assert_eq!(index, [28, 29, NONE, NONE]);
    }

    #[test]
    fn rows_and_words_gather_and_pad() {
        let p = Rows { batch: 2, width: 3, samples: 4 };
        let source: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut x = [9.0; 6];
        rows(&p, 1, &source, &[2, NONE], &mut x);
        assert_eq!(x, [6.0, 7.0, 8.0, 0.0, 0.0, 0.0]);

        let source: Vec<u32> = (0..12).collect();
        let p = Words { batch: 2, width: 3, samples: 4, padding: 77, time_major: 0 };
        let mut x = [0; 6];
        words::<f32>(&p, 1, &source, &[NONE, 3], &mut x);
        assert_eq!(x, [77, 77, 77, 9, 10, 11]);
        words::<f32>(&Words { time_major: 1, ..p }, 1, &source, &[NONE, 3], &mut x);
        assert_eq!(x, [77, 9, 77, 10, 77, 11]);
    }

    #[test]
    fn windows_shift_their_targets_and_end_where_they_say() {
        let packed = [u32::from_le_bytes(*b"abcd"), u32::from_le_bytes(*b"ef\0\0")];
        let plain: Vec<u32> = b"abcdef".iter().map(|c| u32::from(*c)).collect();
        let c = |c: u8| u32::from(c);
        for (tokens, packed) in [(&packed[..], 1), (&plain[..], 0)] {
            let p = Windows { batch: 3, steps: 3, length: 6, samples: 2, padding: 1, packed };
            let (mut inputs, mut targets) = ([0; 9], [0; 9]);
            let index = [1, 0, NONE];
            windows::<f32>(&p, 1, tokens, &[0, 4], &[4, 2], &index, &mut inputs, &mut targets);
            // Columns: sample 1 is "ef" and short, sample 0 is "abcd" and full, no sample.
            let expected = [c(b'e'), c(b'a'), 1, c(b'f'), c(b'b'), 1, 1, c(b'c'), 1];
            assert_eq!(inputs, expected);
            let expected = [c(b'f'), c(b'b'), NONE, NONE, c(b'c'), NONE, NONE, c(b'd'), NONE];
            assert_eq!(targets, expected);
        }
    }

    #[test]
    fn a_stream_goes_on_where_the_last_step_ended() {
        let tokens: Vec<u32> = (100..130).collect();
        let p = Stream { batch: 2, steps: 3, length: 30, padding: 0, packed: 0 };
        // From token 5 on, two parts of 4 steps of 3 tokens: 5..17 and 17..29.
        let mut state = StateRecord::stream(0, 5..9, 2, 9, &Schedule::constant(0.1));
        let (mut inputs, mut targets) = ([0; 6], [0; 6]);
        stream::<f32>(&p, 1, &tokens, &*state, &mut inputs, &mut targets);
        assert_eq!(inputs, [105, 117, 106, 118, 107, 119]);
        state[state::CURSOR] = 3;
        stream::<f32>(&p, 1, &tokens, &*state, &mut inputs, &mut targets);
        assert_eq!(inputs, [114, 126, 115, 127, 116, 128]);
        assert_eq!(targets, [115, 127, 116, 128, 117, 129]);
    }
}
