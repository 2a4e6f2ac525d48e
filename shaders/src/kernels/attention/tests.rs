use super::*;
use crate::kernels::random::{pcg4d, uniform};

fn noise(n: usize, key: u32) -> Vec<f64> {
    (0..n as u32).map(|i| 2.0 * f64::from(uniform(pcg4d([i, key, 1, 2])[0])) - 1.0).collect()
}

/// Three queries and five keys of two samples, four heads that share two of keys; one query has no
/// key.
const P: Attention = Attention {
    queries: 3,
    keys: 5,
    batch: 2,
    heads: 4,
    group: 2,
    size: 8,
    scale: 0.7,
    first_mode: 0,
    second_mode: 0,
};
const WINDOW: [u32; 12] = [0, 5, 1, 3, 0, 2, 4, 9, 2, 2, 0, 4];

fn inputs() -> [Vec<f64>; 4] {
    let (queries, keys) = (3 * 2 * 4 * 8, 5 * 2 * 2 * 8);
    [noise(queries, 1), noise(keys, 2), noise(keys, 3), noise(queries, 4)]
}

fn attend(q: &[f64], k: &[f64], v: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut log_sum) = (vec![9.0; q.len()], vec![9.0; q.len() / 8]);
    forward(&P, 1, q, k, v, &WINDOW, &mut y, &mut log_sum);
    (y, log_sum)
}

#[test]
fn weights_are_positive_and_add_up_to_one() {
    let [q, k, ..] = inputs();
    let (y, log_sum) = attend(&q, &k, &vec![1.0; k.len()]);
    for (row, y) in y.chunks(8).enumerate() {
        // The query of position 2 of the first sample has an empty window.
        let expected = if row / 4 == 4 { 0.0 } else { 1.0 };
        assert!(y.iter().all(|y| (y - expected).abs() < 1e-12), "row {row}: {y:?}");
        assert_eq!(log_sum[row] == 0.0, expected == 0.0);
    }
    // A single key: the result is its value, whatever the score.
    let p = Attention { queries: 1, keys: 1, batch: 1, heads: 1, group: 1, size: 4, ..P };
    let (mut y, mut log_sum) = ([0.0; 4], [0.0]);
    forward(&p, 1, &q[..4], &k[..4], &q[4..8], &[0, 1], &mut y, &mut log_sum);
    assert_eq!(y, q[4..8]);
}

#[test]
fn gradients_are_the_slopes() {
    let [mut q, mut k, mut v, dy] = inputs();
    let (y, log_sum) = attend(&q, &k, &v);
    let mut sums = vec![0.0; 2 * log_sum.len()];
    row_sums(&RowSums { rows: log_sum.len() as u32, width: 8 }, 1, &y, &dy, &log_sum, &mut sums);
    let (mut dq, mut dk, mut dv) = (vec![1.0; q.len()], vec![1.0; k.len()], vec![1.0; v.len()]);
    let p = Attention { first_mode: 1, ..P };
    query_backward(&p, 1, &q, &k, &v, &WINDOW, &dy, &sums, &mut dq);
    key_backward(&p, 1, &q, &k, &v, &WINDOW, &dy, &sums, &mut dk, &mut dv);
    let loss = |q: &[f64], k: &[f64], v: &[f64]| dot(&attend(q, k, v).0, &dy);
    for (which, found, added) in [(0, &dq, 1.0), (1, &dk, 1.0), (2, &dv, 0.0)] {
        for at in (0..found.len()).step_by(3) {
            let mut moved = |by: f64| {
                [&mut q, &mut k, &mut v][which][at] += by;
                let loss = loss(&q, &k, &v);
                [&mut q, &mut k, &mut v][which][at] -= by;
                loss
            };
            let slope = added + (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - found[at]).abs() < 1e-8, "{which} {at}: {slope} {}", found[at]);
        }
    }
    let (before, p) = ((dk.clone(), dv.clone()), Attention { first_mode: 2, second_mode: 2, ..P });
    key_backward(&p, 1, &q, &k, &v, &WINDOW, &dy, &sums, &mut dk, &mut dv);
    assert_eq!(before, (dk, dv), "mode 2 leaves a gradient alone");
}

#[test]
fn turns_keep_lengths_and_depend_on_distances_alone() {
    let table: Vec<f64> = rotary_table(20, 8, 100.0).into_iter().map(f64::from).collect();
    let turned = |x: &[f64], at: u32, inverse: u32| {
        let p = Rotate { rows: 1, heads: 1, pairs: 4, positions: 20, inverse, ..Rotate::default() };
        let mut y = vec![0.0; 8];
        rotate(&p, 1, x, &table, &[at], &mut y);
        y
    };
    let (q, k) = (noise(8, 5), noise(8, 6));
    let product = |i: u32, j: u32| dot(&turned(&q, i, 0), &turned(&k, j, 0));
    for (i, j) in [(3, 0), (10, 7), (19, 16)] {
        assert!((product(i, j) - product(4, 1)).abs() < 1e-6, "{i} {j}");
    }
    assert!((product(3, 0) - product(0, 3)).abs() > 1e-3);
    for (x, back) in q.iter().zip(turned(&turned(&q, 7, 0), 7, 1)) {
        assert!((x - back).abs() < 1e-6);
    }
    // A position past the table counts as its last.
    assert_eq!(turned(&q, 99, 0), turned(&q, 19, 0));
}

#[test]
fn rows_are_stored_at_their_places_and_others_left() {
    let p = Store { n: 2, width: 2, rows: 3 };
    let mut cache = [9.0; 12];
    store(&p, 2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &[2, u32::MAX, 0, 1], &mut cache);
    assert_eq!(cache, [9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.0]);
}
