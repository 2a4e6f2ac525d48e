//! Scaled dot-product attention as one kernel forward and two backward, rotary position embeddings,
//! and a cache of keys and values.
//!
//! Scores are never stored: each row of queries passes over its keys with a running maximum and sum
//! (Milakov and Gimelshein 2018; Dao et al. 2022), and the backward pass computes them again from the
//! logarithm of the sum that the forward pass keeps. Which keys a query attends to is a window of
//! them, `[start, end)`, given as words: causal order, padding on either side, sliding windows and
//! texts side by side are all of this form.
//!
//! ```rust
//! use tern_shaders::kernels::attention::*;
//!
//! // Two positions of one head of four numbers; the second one attends to both.
//! let p = Attention {
//!     queries: 2, keys: 2, batch: 1, heads: 1, group: 1, size: 4, scale: 0.5,
//!     ..Attention::default()
//! };
//! let (q, k) = ([1.0f64; 8], [1.0; 8]);
//! let v = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
//! let (mut y, mut log_sum) = ([0.0; 8], [0.0; 2]);
//! forward(&p, 1, &q, &k, &v, &[0, 1, 0, 2], &mut y, &mut log_sum);
//! assert_eq!(y, [1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0]);
//! assert_eq!(log_sum, [2.0, 2.0 + 2.0f64.ln()]);
//! ```

mod rotary;

use std::ops::Range;

use crate::rows::row_kernel;
use crate::{AnyKernel, Real, kernel, linear_grid, params};

pub use rotary::*;

/// Numbers of a head, at most.
pub const MAX_HEAD: u32 = 128;

params!(
    /// Parameters of [`FORWARD`], [`QUERY_BACKWARD`] and [`KEY_BACKWARD`].
    Attention {
        /// Positions of the queries.
        queries: u32,
        /// Positions of keys and values.
        keys: u32,
        /// Samples.
        batch: u32,
        /// Heads of the queries.
        heads: u32,
        /// Heads of the queries that share one of keys and values; a divisor of `heads`.
        group: u32,
        /// Numbers of a head: a multiple of four, at most [`MAX_HEAD`].
        size: u32,
        /// Factor of the scores.
        scale: f32,
        /// Of [`QUERY_BACKWARD`]: 1 adds to dq, 0 overwrites it. Of [`KEY_BACKWARD`] the same for
        /// dk, and 2 leaves it alone.
        first_mode: u32,
        /// As `first_mode`, for dv.
        second_mode: u32,
    }
);

params!(
    /// Parameters of [`ROW_SUMS`].
    RowSums {
        /// Rows a replica: positions by samples by heads.
        rows: u32,
        /// Numbers of a row.
        width: u32,
    }
);

impl Attention {
    /// The first element of a head of queries.
    fn query(&self, r: usize, t: usize, sample: usize, head: usize) -> usize {
        self.row(r, t, sample, head) * self.size as usize
    }

    /// A head of queries, counted over all.
    fn row(&self, r: usize, t: usize, sample: usize, head: usize) -> usize {
        let [queries, batch, heads] = [self.queries, self.batch, self.heads].map(|n| n as usize);
        ((r * queries + t) * batch + sample) * heads + head
    }

    /// The first element of the head of keys and values that a head of queries attends to.
    fn key(&self, r: usize, s: usize, sample: usize, head: usize) -> usize {
        let [keys, batch, heads] =
            [self.keys, self.batch, self.heads / self.group].map(|n| n as usize);
        (((r * keys + s) * batch + sample) * heads + head / self.group as usize)
            * self.size as usize
    }

    /// The keys that a query attends to.
    pub fn window(&self, window: &[u32], r: usize, t: usize, sample: usize) -> Range<usize> {
        let at = (r * self.queries as usize + t) * self.batch as usize + sample;
        window[2 * at] as usize..window[2 * at + 1].min(self.keys) as usize
    }

    /// Every replica, position, sample and head of the queries.
    fn each(&self, replicas: usize, mut f: impl FnMut(usize, usize, usize, usize)) {
        for r in 0..replicas {
            for t in 0..self.queries as usize {
                for sample in 0..self.batch as usize {
                    (0..self.heads as usize).for_each(|head| f(r, t, sample, head));
                }
            }
        }
    }
}

fn dot<F: Real>(a: &[F], b: &[F]) -> F {
    a.iter().zip(b).map(|(a, b)| *a * *b).sum()
}

/// y = softmax(scale · q kᵀ) v over the keys in each query's window, zero where it has none, and log
/// Σ e^score. Shapes: `q`, `y` `[R, T, B, H, D]`, `k`, `v` `[R, S, B, H / group, D]`, `window`
/// `[R, T, B, 2]`, `log_sum` `[R, T, B, H]`.
pub fn forward<F: Real>(
    p: &Attention,
    replicas: usize,
    q: &[F],
    k: &[F],
    v: &[F],
    window: &[u32],
    y: &mut [F],
    log_sum: &mut [F],
) {
    let size = p.size as usize;
    p.each(replicas, |r, t, sample, head| {
        let own = p.query(r, t, sample, head);
        let keys = p.window(window, r, t, sample);
        let score = |s: usize| {
            dot(&q[own..][..size], &k[p.key(r, s, sample, head)..][..size]) * F::of(p.scale)
        };
        let top = keys.clone().map(score).fold(F::neg_infinity(), |top, score| {
            // A NaN stays.
            if score <= top || top.is_nan() { top } else { score }
        });
        let y = &mut y[own..][..size];
        y.fill(F::zero());
        let mut sum = F::zero();
        for s in keys.clone() {
            let weight = (score(s) - top).exp();
            sum += weight;
            for (y, v) in y.iter_mut().zip(&v[p.key(r, s, sample, head)..]) {
                *y += weight * *v;
            }
        }
        if keys.is_empty() {
            log_sum[p.row(r, t, sample, head)] = F::zero();
            return;
        }
        y.iter_mut().for_each(|y| *y = *y / sum);
        log_sum[p.row(r, t, sample, head)] = top + sum.ln();
    });
}

/// What the backward pass needs of each row: (log Σ e^score, Σ dy · y). Shapes: `y`, `dy`
/// `[R, rows, width]`, `log_sum` `[R, rows]`, `sums` `[R, rows, 2]`.
pub fn row_sums<F: Real>(
    p: &RowSums,
    replicas: usize,
    y: &[F],
    dy: &[F],
    log_sum: &[F],
    sums: &mut [F],
) {
    let width = p.width as usize;
    for row in 0..replicas * p.rows as usize {
        sums[2 * row] = log_sum[row];
        sums[2 * row + 1] = dot(&dy[row * width..][..width], &y[row * width..][..width]);
    }
}

/// The share of a key in a query's result, and the gradient of its score; both heads from `own` and
/// `other` on.
fn share<F: Real>(
    p: &Attention,
    [q, k, v, dy]: [&[F]; 4],
    (own, other): (usize, usize),
    sums: &[F],
) -> [F; 2] {
    let size = p.size as usize;
    let score = dot(&q[own..][..size], &k[other..][..size]) * F::of(p.scale);
    let row = own / size;
    let weight = (score - sums[2 * row]).exp();
    let upstream = dot(&dy[own..][..size], &v[other..][..size]);
    [weight, weight * (upstream - sums[2 * row + 1])]
}

/// dq (+)= scale · Σ over keys of w (dy · v − Σ dy · y) k. Shapes as of [`forward`]; `sums`
/// `[R, T, B, H, 2]` of [`row_sums`].
pub fn query_backward<F: Real>(
    p: &Attention,
    replicas: usize,
    q: &[F],
    k: &[F],
    v: &[F],
    window: &[u32],
    dy: &[F],
    sums: &[F],
    dq: &mut [F],
) {
    p.each(replicas, |r, t, sample, head| {
        let own = p.query(r, t, sample, head);
        let dq = &mut dq[own..][..p.size as usize];
        if p.first_mode == 0 {
            dq.fill(F::zero());
        }
        for s in p.window(window, r, t, sample) {
            let other = p.key(r, s, sample, head);
            let [_, slope] = share(p, [q, k, v, dy], (own, other), sums);
            for (dq, k) in dq.iter_mut().zip(&k[other..]) {
                *dq += slope * F::of(p.scale) * *k;
            }
        }
    });
}

/// dk (+)= scale · Σ of w (dy · v − Σ dy · y) q and dv (+)= Σ of w dy, over the queries whose windows
/// hold the key, and the heads of its group. Shapes as of [`query_backward`].
pub fn key_backward<F: Real>(
    p: &Attention,
    replicas: usize,
    q: &[F],
    k: &[F],
    v: &[F],
    window: &[u32],
    dy: &[F],
    sums: &[F],
    dk: &mut [F],
    dv: &mut [F],
) {
    let size = p.size as usize;
    if p.first_mode == 0 {
        dk.fill(F::zero());
    }
    if p.second_mode == 0 {
        dv.fill(F::zero());
    }
    p.each(replicas, |r, t, sample, head| {
        let own = p.query(r, t, sample, head);
        for s in p.window(window, r, t, sample) {
            let other = p.key(r, s, sample, head);
            let [weight, slope] = share(p, [q, k, v, dy], (own, other), sums);
            for c in 0..size {
                if p.first_mode < 2 {
                    dk[other + c] += slope * F::of(p.scale) * q[own + c];
                }
                if p.second_mode < 2 {
                    dv[other + c] += weight * dy[own + c];
                }
            }
        }
    });
}

/// Declares an attention kernel in both its forms, for heads up to each of some sizes: `rows` and
/// `heads` are those that workgroups have, `passing` the rows that pass by. A workgroup has 16 rows, of
/// which so many lanes each keep a part in registers, as few as every vendor's compiler needs to spill
/// none: `lanes` are those of heads up to 64 and to 128, `part` their quads.
macro_rules! attention_kernel {
    (
        $(#[$meta:meta])*
        $id:ident = $name:literal, $source:literal;
        bindings: [$($bname:ident : $access:ident $element:ident),+ $(,)?];
        reference: $reference:path;
        rows: $rows:expr;
        heads: $heads:expr;
        passing: $passing:expr;
        lanes: [$lanes_64:literal, $lanes_128:literal], part: $part:literal;
    ) => {
        attention_kernel! {
            @variants $(#[$meta])* $id = $name, $source;
            bindings: [$($bname: $access $element),+];
            reference: $reference;
            sizes: ($rows, $heads, $passing);
            ["group_64", ATTENTION_GROUP, $lanes_64, 16, $part, 4, (true, false)]
            ["group_128", ATTENTION_GROUP, $lanes_128, 16, $part, 4, (true, false)]
            ["single_32", ATTENTION_SINGLE, 1, 64, 8, 4, (false, true)]
            ["single_64", ATTENTION_SINGLE, 1, 64, 16, 4, (false, true)]
            ["single_128", ATTENTION_SINGLE, 1, 64, 32, 4, (false, true)]
        }
    };
    (
        @variants $(#[$meta:meta])* $id:ident = $name:literal, $source:literal;
        bindings: [$($bname:ident : $access:ident $element:ident),+];
        reference: $reference:path;
        sizes: $sizes:tt;
        $([$variant:literal, $prelude:ident, $lanes:literal, $block:literal, $part:literal,
           $tile:literal, ($memory:literal, $software:literal)])+
    ) => {
        kernel! {
            $(#[$meta])*
            $id = $name, Attention;
            bindings: [$($bname: $access $element),+];
            reference: $reference;
            variants: [$({
                name: $variant,
                source: $source,
                preludes: [ATTENTION_PARAMS, $prelude],
                consts: [
                    GROUP = $lanes * $block, LANES = $lanes, ROWS = $block, PART = $part, TILE = $tile,
                ],
                workgroup_memory: $memory,
                software: $software,
                fits: |p| p.size <= 4 * $lanes * $part,
                iterations: |p, v| {
                    let (_, _, passing): Sizes = $sizes;
                    u64::from(passing(p)).div_ceil(u64::from(v.constant("TILE")))
                },
                grid: |p, v| {
                    let (rows, heads, _): Sizes = $sizes;
                    let blocks = rows(p).div_ceil(v.constant("ROWS"));
                    linear_grid((blocks * p.batch * heads(p)) as usize, 1)
                },
            }),+];
        }
    };
}

/// Rows and heads that workgroups have, and rows that pass by.
type Sizes = (fn(&Attention) -> u32, fn(&Attention) -> u32, fn(&Attention) -> u32);

attention_kernel! {
    /// Attention, and log Σ e^score of each row.
    FORWARD = "attention/forward", "attention/forward.wgsl";
    bindings: [
        q: read f32, k: read f32, v: read f32, window: read u32, y: write f32, log_sum: write f32,
    ];
    reference: forward;
    rows: |p| p.queries;
    heads: |p| p.heads;
    passing: |p| p.keys;
    lanes: [4, 8], part: 4;
}

row_kernel! {
    /// What the backward pass needs of each row.
    ROW_SUMS = "attention/row_sums", RowSums;
    bindings: [y: read f32, dy: read f32, log_sum: read f32, sums: write f32];
    reference: row_sums;
    source: "attention/row_sums.wgsl";
    rows: |p| p.rows;
    length: |p| p.width;
    passes: |_| 1;
}

attention_kernel! {
    /// Gradient of the queries.
    QUERY_BACKWARD = "attention/query_backward", "attention/query_backward.wgsl";
    bindings: [
        q: read f32, k: read f32, v: read f32, window: read u32, dy: read f32, sums: read f32,
        dq: write f32,
    ];
    reference: query_backward;
    rows: |p| p.queries;
    heads: |p| p.heads;
    passing: |p| p.keys;
    lanes: [4, 8], part: 4;
}

attention_kernel! {
    /// Gradients of keys and values.
    KEY_BACKWARD = "attention/key_backward", "attention/key_backward.wgsl";
    bindings: [
        q: read f32, k: read f32, v: read f32, window: read u32, dy: read f32, sums: read f32,
        dk: write f32, dv: write f32,
    ];
    reference: key_backward;
    rows: |p| p.keys;
    heads: |p| p.heads / p.group;
    passing: |p| (p.queries + 8) * p.group;
    lanes: [8, 16], part: 2;
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[
    FORWARD.any(),
    ROW_SUMS.any(),
    QUERY_BACKWARD.any(),
    KEY_BACKWARD.any(),
    ROTATE.any(),
    STORE.any(),
];

#[cfg(test)]
mod tests;
