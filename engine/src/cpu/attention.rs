//! Attention: blocks of queries, or of keys, by products of matrices, and rows of scores in
//! vectors. A block has the scores of all keys that one of its queries attends to at once, so that
//! a row's maximum is known before its exponentials.

use std::ops::Range;

use fearless_simd::Simd;
use rayon::prelude::*;
use tern_shaders::kernels::attention::{Attention, Rotate, RowSums};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::parallel::rows;
use super::product::{View, multiply};
use super::scratch;
use super::vector::{exp, largest_or_nan, put, rewrite, splat, sum};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("attention/forward", forward),
    ("attention/row_sums", row_sums),
    ("attention/query_backward", query_backward),
    ("attention/key_backward", key_backward),
    ("attention/rotate", rotate),
];

/// Positions of a block: as many whatever the number of threads, so that no bit depends on that.
const BLOCK: usize = 32;

/// Multiplications below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 18;

/// A sample's head of queries, and the one of keys and values that it attends to.
#[derive(Clone, Copy)]
struct Head<'a> {
    p: &'a Attention,
    replica: usize,
    sample: usize,
    head: usize,
}

impl<'a> Head<'a> {
    /// All heads of queries of a replica's samples.
    fn each(p: &'a Attention, replica: usize) -> impl Iterator<Item = Head<'a>> {
        let heads = p.heads as usize;
        let all = 0..p.batch as usize * heads;
        all.map(move |i| Head { p, replica, sample: i / heads, head: i % heads })
    }

    /// Its place among all heads of a position, of queries.
    fn of_queries(self) -> usize {
        self.sample * self.p.heads as usize + self.head
    }

    /// The same of keys and values.
    fn of_keys(self) -> usize {
        (self.sample * self.p.heads as usize + self.head) / self.p.group as usize
    }

    /// Some positions of a tensor of queries, as a matrix.
    fn queries(self, x: &'a [f32], positions: Range<usize>) -> View<'a> {
        let all = query_heads(self.p);
        let first = self.replica * self.p.queries as usize + positions.start;
        self.rows(x, first * all + self.of_queries(), positions.len(), all)
    }

    /// Some positions of a tensor of keys or values.
    fn keys(self, x: &'a [f32], positions: Range<usize>) -> View<'a> {
        let all = key_heads(self.p);
        let first = self.replica * self.p.keys as usize + positions.start;
        self.rows(x, first * all + self.of_keys(), positions.len(), all)
    }

    fn rows(self, x: &'a [f32], first: usize, count: usize, all: usize) -> View<'a> {
        let size = self.p.size as usize;
        View::rows(&x[first * size..], count, size, all * size)
    }

    /// The keys that a query attends to.
    fn window(self, window: &[u32], query: usize) -> Range<usize> {
        let keys = self.p.window(window, self.replica, query, self.sample);
        keys.start.min(keys.end)..keys.end
    }

    /// The number of a query's row among all.
    fn row(self, query: usize) -> usize {
        let queries = self.p.queries as usize;
        (self.replica * queries + query) * query_heads(self.p) + self.of_queries()
    }
}

/// Heads of a position of queries, of all samples.
fn query_heads(p: &Attention) -> usize {
    (p.batch * p.heads) as usize
}

/// Heads of a position of keys, of all samples.
fn key_heads(p: &Attention) -> usize {
    (p.batch * (p.heads / p.group)) as usize
}

/// Calls `f` with the replica, the positions and the parts of `a` and `b` of each block of a
/// replica's positions; both have so many elements a position.
fn blocks<B: Send>(
    p: &Attention,
    positions: u32,
    (a, a_width): (&mut [f32], usize),
    (b, b_width): (&mut [B], usize),
    f: impl Fn(usize, Range<usize>, &mut [f32], &mut [B]) + Send + Sync,
) {
    let positions = positions as usize;
    let (block, replicas) = (BLOCK * a_width, a.len() / (positions * a_width));
    let work = replicas * query_heads(p) * (p.queries * p.keys * p.size) as usize;
    let least = if work < WORTH_A_THREAD { usize::MAX } else { 1 };
    let all = a.par_chunks_mut(positions * a_width).zip(b.par_chunks_mut(positions * b_width));
    all.with_min_len(least).enumerate().for_each(|(replica, (a, b))| {
        let blocks = a.par_chunks_mut(block).zip(b.par_chunks_mut(BLOCK * b_width));
        blocks.with_min_len(least).enumerate().for_each(|(i, (a, b))| {
            let first = i * BLOCK;
            f(replica, first..positions.min(first + BLOCK), a, b);
        });
    });
}

/// From the first key that one of some queries attends to, to the last.
fn span(head: Head<'_>, window: &[u32], queries: Range<usize>) -> Range<usize> {
    let windows = queries.map(|query| head.window(window, query)).filter(|keys| !keys.is_empty());
    windows.reduce(|all, keys| all.start.min(keys.start)..all.end.max(keys.end)).unwrap_or(0..0)
}

/// The part of a window that lies within some keys, counted from the first of them.
fn within(window: Range<usize>, keys: &Range<usize>) -> Range<usize> {
    let at = |place: usize| place.clamp(keys.start, keys.end) - keys.start;
    at(window.start)..at(window.end)
}

/// x = factor · x
#[inline(always)]
fn scale_by<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = splat(s, factor);
    rewrite(
        s,
        [],
        [x],
        #[inline(always)]
        |[], [x]| [x * factor],
    );
}

/// Scores to shares that are not divided by their sum yet: gives (maximum, sum).
#[inline(always)]
fn soften<S: Simd>(s: S, scores: &mut [f32], scale: f32) -> [f32; 2] {
    scale_by(s, scores, scale);
    let top = largest_or_nan(s, scores);
    let shift = splat(s, top);
    rewrite(
        s,
        [],
        [scores],
        #[inline(always)]
        |[], [x]| [exp(s, x - shift)],
    );
    let total = sum(
        s,
        [scores],
        #[inline(always)]
        |[x]| x,
    );
    [top, total]
}

fn forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Attention = bytemuck::from_bytes(p);
    let [q, k, v, window, y, log_sum] = args else { unreachable!("six bindings") };
    let (q, k, v, window) = (q.real(), k.real(), v.real(), window.word());
    let (size, all) = (p.size as usize, query_heads(p));
    let outputs = ((y.real_mut(), all * size), (log_sum.real_mut(), all));
    blocks(p, p.queries, outputs.0, outputs.1, |replica, queries, y, log_sum| {
        for head in Head::each(p, replica) {
            let (place, keys) = (head.of_queries(), span(head, window, queries.clone()));
            let row = |i: usize| (i * all + place) * size;
            if keys.is_empty() {
                for i in 0..queries.len() {
                    y[row(i)..][..size].fill(0.0);
                    log_sum[i * all + place] = 0.0;
                }
                continue;
            }
            let (m, n) = (queries.len(), keys.len());
            scratch::lend(m * n, |scores| {
                let key_rows = head.keys(k, keys.clone()).transposed();
                multiply(scores, n, false, head.queries(q, queries.clone()), key_rows);
                let mut sums = [0.0; BLOCK];
                for (i, scores) in scores.chunks_exact_mut(n).take(m).enumerate() {
                    let own = within(head.window(window, queries.start + i), &keys);
                    scores[..own.start].fill(0.0);
                    scores[own.end..].fill(0.0);
                    let [top, sum] = match own.is_empty() {
                        true => [0.0, 1.0],
                        false => with_vectors!(s => soften(s, &mut scores[own.clone()], p.scale)),
                    };
                    (sums[i], log_sum[i * all + place]) = (sum, top + sum.ln());
                }
                let shares = View::rows(scores, m, n, n);
                multiply(&mut y[place * size..], all * size, false, shares, head.keys(v, keys));
                for (i, sum) in sums[..m].iter().enumerate() {
                    with_vectors!(s => scale_by(s, &mut y[row(i)..][..size], 1.0 / sum));
                }
            });
        }
    });
}

/// Scores and dy · v to the shares and to the slopes of scores, times their scale.
#[inline(always)]
fn slopes<S: Simd>(s: S, [scores, upstream]: [&mut [f32]; 2], scale: f32, sums: [f32; 2]) {
    let (scale, log_sum, product) = (splat(s, scale), splat(s, sums[0]), splat(s, sums[1]));
    rewrite(
        s,
        [],
        [scores, upstream],
        #[inline(always)]
        |[], [x, upstream]| {
            let share = exp(s, x * scale - log_sum);
            [share, share * (upstream - product) * scale]
        },
    );
}

/// What both backward kernels read.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    window: &'a [u32],
    dy: &'a [f32],
    sums: &'a [f32],
}

impl Inputs<'_> {
    /// The shares of some keys in some queries' results, and the slopes of their scores: a row a
    /// query, zero outside of its window.
    fn shares(
        self,
        head: Head<'_>,
        (queries, keys): (Range<usize>, Range<usize>),
        scores: &mut [f32],
        upstream: &mut [f32],
    ) {
        let n = keys.len();
        for (x, left, right) in [(&mut *scores, self.q, self.k), (&mut *upstream, self.dy, self.v)]
        {
            let right = head.keys(right, keys.clone()).transposed();
            multiply(x, n, false, head.queries(left, queries.clone()), right);
        }
        let rows = scores.chunks_exact_mut(n).zip(upstream.chunks_exact_mut(n)).zip(queries);
        for ((scores, upstream), query) in rows {
            let own = within(head.window(self.window, query), &keys);
            for x in [&mut *scores, &mut *upstream] {
                x[..own.start].fill(0.0);
                x[own.end..].fill(0.0);
            }
            let row = head.row(query);
            let sums = [self.sums[2 * row], self.sums[2 * row + 1]];
            let own = [&mut scores[own.clone()], &mut upstream[own]];
            with_vectors!(s => slopes(s, own, head.p.scale, sums));
        }
    }
}

fn query_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Attention = bytemuck::from_bytes(p);
    let [q, k, v, window, dy, sums, dq] = args else { unreachable!("seven bindings") };
    let (q, k, v, window) = (q.real(), k.real(), v.real(), window.word());
    let inputs = Inputs { q, k, v, window, dy: dy.real(), sums: sums.real() };
    let (size, all, add) = (p.size as usize, query_heads(p), p.first_mode == 1);
    let mut nothing = vec![(); replicas * p.queries as usize];
    let outputs = ((dq.real_mut(), all * size), (&mut nothing[..], 1));
    blocks(p, p.queries, outputs.0, outputs.1, |replica, queries, dq, _| {
        for head in Head::each(p, replica) {
            let (place, keys) = (head.of_queries(), span(head, window, queries.clone()));
            let (m, n) = (queries.len(), keys.len());
            if n == 0 && !add {
                dq.chunks_mut(all * size).for_each(|dq| dq[place * size..][..size].fill(0.0));
            }
            if n == 0 {
                continue;
            }
            scratch::lend(2 * m * n, |both| {
                let (scores, upstream) = both.split_at_mut(m * n);
                let upstream = &mut upstream[..m * n];
                inputs.shares(head, (queries.clone(), keys.clone()), scores, upstream);
                let slopes = View::rows(upstream, m, n, n);
                multiply(&mut dq[place * size..], all * size, add, slopes, head.keys(k, keys));
            });
        }
    });
}

fn key_backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Attention = bytemuck::from_bytes(p);
    let [q, k, v, window, dy, sums, dk, dv] = args else { unreachable!("eight bindings") };
    let (q, k, v, window) = (q.real(), k.real(), v.real(), window.word());
    let inputs = Inputs { q, k, v, window, dy: dy.real(), sums: sums.real() };
    let width = key_heads(p) * p.size as usize;
    let outputs = ((dk.real_mut(), width), (dv.real_mut(), width));
    blocks(p, p.keys, outputs.0, outputs.1, |replica, keys, dk, dv| {
        for (mode, x) in [(p.first_mode, &mut *dk), (p.second_mode, &mut *dv)] {
            if mode == 0 {
                x.fill(0.0);
            }
        }
        for head in Head::each(p, replica) {
            let meets = |query: &usize| {
                let own = head.window(window, *query);
                own.start.max(keys.start) < own.end.min(keys.end)
            };
            let all = 0..p.queries as usize;
            let (Some(first), Some(last)) = (all.clone().find(meets), all.rev().find(meets)) else {
                continue;
            };
            let queries = first..last + 1;
            let (m, n) = (queries.len(), keys.len());
            scratch::lend(2 * m * n, |both| {
                let (scores, upstream) = both.split_at_mut(m * n);
                let upstream = &mut upstream[..m * n];
                inputs.shares(head, (queries.clone(), keys.clone()), scores, upstream);
                let first = head.of_keys() * p.size as usize;
                let outputs = [(p.first_mode, &mut *dk, q), (p.second_mode, &mut *dv, inputs.dy)];
                for ((mode, to, from), shares) in outputs.into_iter().zip([&*upstream, &*scores]) {
                    if mode < 2 {
                        let shares = View::rows(shares, m, n, n).transposed();
                        let rows = head.queries(from, queries.clone());
                        multiply(&mut to[first..], width, true, shares, rows);
                    }
                }
            });
        }
    });
}

fn row_sums(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &RowSums = bytemuck::from_bytes(p);
    let [y, dy, log_sum, sums] = args else { unreachable!("four bindings") };
    let (y, dy, log_sum, width) = (y.real(), dy.real(), log_sum.real(), p.width as usize);
    rows(sums.real_mut(), 2, width, |first, sums| {
        for (row, sums) in (first..).zip(sums.chunks_exact_mut(2)) {
            let [y, dy] = [y, dy].map(|x| &x[row * width..][..width]);
            let product = with_vectors!(s => sum(
                s,
                [y, dy],
                #[inline(always)]
                |[y, dy]| y * dy,
            ));
            sums.copy_from_slice(&[log_sum[row], product]);
        }
    });
}

/// Turns the halves of a head by angles, whose sines are taken times `sign`.
#[inline(always)]
fn turn<S: Simd>(s: S, x: &[f32], table: &[f32], (sign, accumulate): (f32, bool), y: &mut [f32]) {
    let pairs = x.len() / 2;
    let ((a, b), (cosine, sine)) = (x.split_at(pairs), table.split_at(pairs));
    let (left, right) = y.split_at_mut(pairs);
    let sign = splat(s, sign);
    put(
        s,
        [a, b, cosine, sine],
        accumulate,
        left,
        #[inline(always)]
        |[a, b, cosine, sine]| a * cosine - b * (sine * sign),
    );
    put(
        s,
        [a, b, cosine, sine],
        accumulate,
        right,
        #[inline(always)]
        |[a, b, cosine, sine]| b * cosine + a * (sine * sign),
    );
}

fn rotate(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rotate = bytemuck::from_bytes(p);
    let [x, table, position, y] = args else { unreachable!("four bindings") };
    let (x, table, position) = (x.real(), table.real(), position.word());
    let (size, heads) = (2 * p.pairs as usize, p.heads as usize);
    let sign = if p.inverse != 0 { -1.0 } else { 1.0 };
    rows(y.real_mut(), size, 2 * size, |first, y| {
        for (head, y) in (first..).zip(y.chunks_exact_mut(size)) {
            let row = head / heads;
            let place = position[row].min(p.positions - 1) as usize;
            let angles = &table[(row / p.rows as usize * p.positions as usize + place) * size..];
            let x = &x[head * size..][..size];
            with_vectors!(s => turn(s, x, &angles[..size], (sign, p.accumulate != 0), y));
        }
    });
}
