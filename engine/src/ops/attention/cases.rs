//! Cases of the family.

use tern_shaders::kernels::attention::{
    self, Attention, FORWARD, KEY_BACKWARD, QUERY_BACKWARD, ROTATE, ROW_SUMS, Rotate, RowSums,
    STORE, Store, rotary_table,
};
use tern_shaders::kernels::random::pcg4d;

use crate::Data;
use crate::ops::{Case, codes, noise};

/// The keys that the queries of a case attend to.
#[derive(Clone, Copy, Debug)]
enum Windows {
    Causal,
    All,
    /// Some of them empty, some past the end.
    Any,
}

fn windows(p: &Attention, replicas: usize, kind: Windows) -> Data {
    let mut words = Vec::new();
    for i in 0..replicas as u32 * p.queries * p.batch {
        let t = i / p.batch % p.queries;
        let [a, b, ..] = pcg4d([i, p.keys, 6, 6]);
        words.extend(match kind {
            Windows::Causal => [0, (t + 1 + p.keys).saturating_sub(p.queries)],
            Windows::All => [0, p.keys],
            Windows::Any => [a % p.keys, b % (p.keys + 3)],
        });
    }
    Data::U32(words)
}

fn floats(data: &Data) -> Vec<f64> {
    match data {
        Data::F32(values) => values.iter().map(|x| f64::from(*x)).collect(),
        Data::U32(_) => Vec::new(),
    }
}

/// What the forward pass leaves for the backward one: y, the log sums, and the sums of rows.
fn forward(p: &Attention, replicas: usize, [q, k, v, window, dy]: [&Data; 5]) -> [Data; 3] {
    let Data::U32(window) = window else { return [(); 3].map(|()| Data::F32(Vec::new())) };
    let [q, k, v, dy] = [q, k, v, dy].map(floats);
    let rows = q.len() / p.size as usize;
    let (mut y, mut log_sum, mut sums) = (vec![0.0; q.len()], vec![0.0; rows], vec![0.0; 2 * rows]);
    attention::forward(p, replicas, &q, &k, &v, window, &mut y, &mut log_sum);
    let of = RowSums { rows: rows as u32, width: p.size };
    attention::row_sums(&of, 1, &y, &dy, &log_sum, &mut sums);
    [y, log_sum, sums].map(|x| Data::F32(x.into_iter().map(|x| x as f32).collect()))
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for ([queries, keys, batch, heads, group, size], replicas, kind) in [
        ([1, 1, 1, 1, 1, 4], 1, Windows::All),
        ([7, 7, 2, 3, 1, 8], 3, Windows::Causal),
        ([5, 9, 1, 4, 2, 36], 1, Windows::Any),
        ([33, 40, 2, 6, 3, 16], 2, Windows::Any),
        ([1, 70, 2, 4, 4, 64], 1, Windows::All),
        ([100, 100, 1, 2, 2, 128], 1, Windows::Causal),
        ([40, 65, 1, 2, 1, 100], 1, Windows::Causal),
    ] {
        let p = Attention {
            queries,
            keys,
            batch,
            heads,
            group,
            size,
            scale: 0.7,
            ..Default::default()
        };
        cases.extend(of_attention(p, replicas as usize, kind));
    }
    for (rows, heads, pairs, positions, replicas) in
        [(1u32, 1u32, 1u32, 1u32, 1usize), (6, 3, 5, 4, 3), (40, 2, 32, 40, 1)]
    {
        let n = (rows * heads * 2 * pairs) as usize * replicas;
        // Some past the table.
        let position = codes(rows as usize * replicas, positions + 1, 5);
        let table = rotary_table(positions as usize, 2 * pairs as usize, 100.0).repeat(replicas);
        for (inverse, accumulate) in [(0, 0), (1, 0), (1, 1)] {
            let params = Rotate { rows, heads, pairs, positions, inverse, accumulate };
            let label = format!("{rows} x {heads} x {pairs} inverse {inverse} {accumulate}");
            let (x, y) = (noise(n, 2.0, 1), noise(n, 1.0, 2));
            let buffers = vec![x, Data::F32(table.clone()), position.clone(), y];
            cases.push(Case::new(&ROTATE, label, &params, replicas, buffers));
        }
    }
    for (n, width, rows, replicas) in [(1u32, 1u32, 1u32, 1usize), (3, 5, 7, 3), (9, 70, 40, 2)] {
        // Each at a place of its own, but for one past the end.
        let place =
            (0..n * replicas as u32).map(|i| if i == 1 { u32::MAX } else { i % n * 2 % rows });
        let sizes = [n * width, rows * width].map(|n| n as usize * replicas);
        let buffers =
            vec![noise(sizes[0], 1.0, 1), Data::U32(place.collect()), noise(sizes[1], 1.0, 2)];
        let label = format!("{n} of {rows} x {width}");
        cases.push(Case::new(&STORE, label, &Store { n, width, rows }, replicas, buffers));
    }
    cases
}

fn of_attention(p: Attention, replicas: usize, kind: Windows) -> Vec<Case> {
    let rows = replicas * (p.queries * p.batch * p.heads) as usize;
    let key_rows = replicas * (p.keys * p.batch * (p.heads / p.group)) as usize;
    let size = p.size as usize;
    let (q, dy) = (noise(rows * size, 1.0, 1), noise(rows * size, 1.0, 4));
    let (k, v) = (noise(key_rows * size, 1.0, 2), noise(key_rows * size, 1.0, 3));
    let window = windows(&p, replicas, kind);
    let [y, log_sum, sums] = forward(&p, replicas, [&q, &k, &v, &window, &dy]);
    let Attention { queries, keys, batch, heads, group, .. } = p;
    let label = format!("{queries} by {keys}, {batch} x {heads} / {group} x {size}, {kind:?}");
    let mut cases = Vec::new();
    let buffers = [&q, &k, &v, &window, &dy, &log_sum].map(Data::clone).to_vec();
    cases.push(Case::new(&FORWARD, &label, &p, replicas, buffers));
    let of = RowSums { rows: (rows / replicas) as u32, width: p.size };
    let buffers = [&y, &dy, &log_sum, &noise(2 * rows, 1.0, 5)].map(Data::clone).to_vec();
    cases.push(Case::new(&ROW_SUMS, &label, &of, replicas, buffers));
    for first_mode in [0, 1] {
        let p = Attention { first_mode, ..p };
        let buffers = [&q, &k, &v, &window, &dy, &sums, &y].map(Data::clone).to_vec();
        let label = format!("{label} accumulate {first_mode}");
        cases.push(Case::new(&QUERY_BACKWARD, label, &p, replicas, buffers));
    }
    for (first_mode, second_mode) in [(0, 0), (1, 2), (2, 1)] {
        let p = Attention { first_mode, second_mode, ..p };
        let buffers = [&q, &k, &v, &window, &dy, &sums, &k, &v].map(Data::clone).to_vec();
        let label = format!("{label} modes {first_mode} {second_mode}");
        cases.push(Case::new(&KEY_BACKWARD, label, &p, replicas, buffers));
    }
    cases
}
