//! Rotary position embeddings, and rows that are stored in a cache.

use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`ROTATE`].
    Rotate {
        /// Rows a replica: positions by samples.
        rows: u32,
        /// Heads of a row.
        heads: u32,
        /// Pairs of a head: half of its numbers.
        pairs: u32,
        /// Positions of the table.
        positions: u32,
        /// 1 turns back: the gradient.
        inverse: u32,
        /// 1 adds to `y`, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`STORE`].
    Store {
        /// Rows a replica.
        n: u32,
        /// Numbers of a row.
        width: u32,
        /// Rows of the cache a replica.
        rows: u32,
    }
);

/// cos and sin of position · base^(−2 i / size) for the pairs i of a head of `size` numbers:
/// `[positions, 2, size / 2]`.
///
/// ```
/// let table = tern_shaders::kernels::attention::rotary_table(3, 4, 10_000.0);
/// assert_eq!(table[..4], [1.0, 1.0, 0.0, 0.0]);
/// assert_eq!(table[8..], [2f32.cos(), 0.02f32.cos(), 2f32.sin(), 0.02f32.sin()]);
/// ```
pub fn rotary_table(positions: usize, size: usize, base: f64) -> Vec<f32> {
    let pairs = size / 2;
    let angle = |at: usize, i: usize| at as f64 * base.powf(-2.0 * i as f64 / size as f64);
    let row = |at: usize| {
        let cosines = (0..pairs).map(move |i| angle(at, i).cos() as f32);
        cosines.chain((0..pairs).map(move |i| angle(at, i).sin() as f32))
    };
    (0..positions).flat_map(row).collect()
}

/// Turns the pairs (i, i + pairs) of each head by the angles of its position, as Llama does (Su et
/// al. 2021, who pair neighbors): y (+)= (a cos − b sin, b cos + a sin). Shapes: `x`, `y`
/// `[R, rows, heads, 2 · pairs]`, `table` `[R, positions, 2, pairs]` (cosines, sines), `position`
/// `[R, rows]`.
pub fn rotate<F: Real>(
    p: &Rotate,
    replicas: usize,
    x: &[F],
    table: &[F],
    position: &[u32],
    y: &mut [F],
) {
    let [rows, heads, pairs] = [p.rows, p.heads, p.pairs].map(|n| n as usize);
    for head in 0..replicas * rows * heads {
        let row = head / heads;
        let place = position[row].min(p.positions - 1) as usize;
        let angles = 2 * (row / rows * p.positions as usize + place) * pairs;
        for i in 0..pairs {
            let (cosine, sine) = (table[angles + i], table[angles + pairs + i]);
            let sine = if p.inverse != 0 { -sine } else { sine };
            let (left, right) = (2 * head * pairs + i, (2 * head + 1) * pairs + i);
            let (a, b) = (x[left], x[right]);
            for (at, turned) in [(left, a * cosine - b * sine), (right, b * cosine + a * sine)] {
                y[at] = if p.accumulate != 0 { y[at] + turned } else { turned };
            }
        }
    }
}

/// cache\[place\] = x, row by row; a place past the cache's rows leaves the row out. Of rows with one
/// place any may be the last. Shapes: `x` `[R, n, width]`, `place` `[R, n]`, `cache`
/// `[R, rows, width]`.
pub fn store<F: Real>(p: &Store, replicas: usize, x: &[F], place: &[u32], cache: &mut [F]) {
    let [n, width, rows] = [p.n, p.width, p.rows].map(|n| n as usize);
    for (at, place) in place[..replicas * n].iter().enumerate() {
        let row = *place as usize;
        if row < rows {
            let to = (at / n * rows + row) * width;
            cache[to..][..width].copy_from_slice(&x[at * width..][..width]);
        }
    }
}

kernel! {
    /// Rotary position embedding, and its gradient.
    ROTATE = "attention/rotate", Rotate;
    bindings: [x: read f32, table: read f32, position: read u32, y: write f32];
    reference: rotate;
    variants: [{
        name: "plain",
        source: "attention/rotate.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid((p.rows * p.heads * p.pairs) as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Rows stored where words say.
    STORE = "attention/store", Store;
    bindings: [x: read f32, place: read u32, cache: write f32];
    reference: store;
    variants: [{
        name: "plain",
        source: "attention/store.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid((p.n * p.width) as usize, v.constant("GROUP")),
    }];
}
