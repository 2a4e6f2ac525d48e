use proptest::prelude::*;

use super::*;

fn numbers(n: usize, key: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| {
            let hash = tern_shaders::kernels::random::pcg4d([i, key, 3, 4])[0];
            tern_shaders::kernels::random::uniform(hash) - 0.5
        })
        .collect()
}

/// A matrix by rows, or by columns, with gaps between them.
fn matrix(data: &[f32], rows: usize, columns: usize, by_columns: bool, gap: usize) -> View<'_> {
    if by_columns {
        View::rows(data, columns, rows, rows + gap).transposed()
    } else {
        View::rows(data, rows, columns, columns + gap)
    }
}

fn at(view: View<'_>, i: usize, j: usize) -> f64 {
    f64::from(view.data[i * view.row + j * view.column])
}

/// Holds a product against the plain sum, on every instruction set and with several threads.
fn check([m, n, k]: [usize; 3], by_columns: [bool; 2], gaps: [usize; 3], add: bool) {
    let area = |rows: usize, columns: usize, gap: usize| (rows + gap) * (columns + gap);
    let (x, y) = (numbers(area(m, k, gaps[0]), 1), numbers(area(k, n, gaps[1]), 2));
    let a = matrix(&x, m, k, by_columns[0], gaps[0]);
    let b = matrix(&y, k, n, by_columns[1], gaps[1]);
    let row = n + gaps[2];
    let before = numbers(m * row, 3);
    for isa in Isa::available() {
        let [mut one, more @ ..] = [1, 2, 3, 8].map(|threads| {
            let mut c = before.clone();
            product(isa.level().unwrap(), threads, &mut c, row, add, a, b);
            c
        });
        let what = format!("{isa} {m} {n} {k} {by_columns:?} {gaps:?} {add}");
        assert!(more.iter().all(|c| *c == one), "{what}: threads");
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k).map(|k| at(a, i, k) * at(b, k, j)).sum();
                let own = f64::from(before[i * row + j]);
                let expected = if add { own + sum } else { sum };
                let found = f64::from(one[i * row + j]);
                assert!((found - expected).abs() < 1e-5, "{what}: [{i}, {j}] {found} {expected}");
                one[i * row + j] = before[i * row + j];
            }
            assert!(one[i * row..][..row] == before[i * row..][..row], "{what}: gaps");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn products_are_sums(
        m in 1usize..40, n in 1usize..70, k in 0usize..50,
        by_columns: [bool; 2], gaps in [0usize..3, 0usize..3, 0usize..3], add: bool,
    ) {
        check([m, n, k], by_columns, gaps, add);
    }
}

/// Sizes at which each way is taken, and blocks of each kind end.
#[test]
fn every_way_and_block_is_taken() {
    let ways = [
        ([3, 40, 70], Way::Dot, [false, true]),
        ([11, 41, 70], Way::Dot, [true, true]),
        ([21, 40, 70], Way::Blocks, [false, true]),
        ([40, 8, 20], Way::Transposed, [true, false]),
        ([40, 5, 20], Way::Transposed, [false, false]),
        ([14, 70, 3], Way::Blocks, [false, false]),
        ([5, 70, 1], Way::Blocks, [false, true]),
        ([130, 33, 1030], Way::Blocks, [false, true]),
        ([9, 2060, 17], Way::Blocks, [true, false]),
    ];
    for (sizes, way, by_columns) in ways {
        let [m, n, k] = sizes;
        let (x, y) = (numbers(m * k, 1), numbers(k * n, 2));
        let (a, b) = (matrix(&x, m, k, by_columns[0], 0), matrix(&y, k, n, by_columns[1], 0));
        assert_eq!(Way::of(a, b), way, "{sizes:?}");
        check(sizes, by_columns, [0; 3], true);
        check(sizes, by_columns, [1, 2, 1], false);
    }
}

#[test]
fn shares_cover_a_matrix_once() {
    for (threads, m, n) in [(1, 5, 7), (2, 100, 10), (2, 10, 100), (6, 90, 80), (7, 3, 2)] {
        let [rows, columns] = grid(threads, m, n);
        assert!(rows.len() * columns.len() <= threads);
        for (parts, length) in [(rows, m), (columns, n)] {
            let all: Vec<usize> = parts.into_iter().flatten().collect();
            assert_eq!(all, (0..length).collect::<Vec<_>>(), "{threads} {m} {n}");
        }
    }
}
