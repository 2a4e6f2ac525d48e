//! Metrics: ranks of targets, counts of hits, the largest of each row.
//!
//! ```rust
//! use tern_shaders::kernels::metrics::{Rank, TopK, rank, top_k};
//!
//! let logits = [0.1f32, 0.7, 0.2];
//! // One class comes before the target 2.
//! let mut ranks = [0];
//! rank(&Rank { rows: 1, classes: 3 }, 1, &logits, &[2], &mut ranks);
//! assert_eq!(ranks, [1]);
//! let (mut values, mut places) = ([0.0; 2], [0; 2]);
//! top_k(&TopK { rows: 1, classes: 3, k: 2 }, 1, &logits, &mut values, &mut places);
//! assert_eq!((values, places), ([0.7, 0.2], [1, 2]));
//! ```

use std::cmp::Ordering;

use super::loss::IGNORED;
use crate::rows::row_kernel;
use crate::{AnyKernel, Real, params};

/// Most elements that [`TOP_K`] takes of a row.
pub const MAX_K: u32 = 16;

params!(
    /// Parameters of [`RANK`].
    Rank {
        /// Rows a replica.
        rows: u32,
        /// Classes, the length of a row.
        classes: u32,
    }
);

params!(
    /// Parameters of [`ACCURACY`].
    Accuracy {
        /// Rows a replica.
        rows: u32,
        /// A rank below this is a hit of the second count.
        k: u32,
        /// 1 adds to `counts`, 0 overwrites them.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`TOP_K`].
    TopK {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        classes: u32,
        /// Elements taken, at most `classes` and [`MAX_K`].
        k: u32,
    }
);

/// Larger values first, NaN before all numbers, ties by the lower place.
fn order<F: Real>(a: (F, usize), b: (F, usize)) -> Ordering {
    let values = b.0.partial_cmp(&a.0).unwrap_or_else(|| b.0.is_nan().cmp(&a.0.is_nan()));
    values.then(a.1.cmp(&b.1))
}

/// rank = number of classes before the target: larger logit, on a tie the lower index;
/// [`IGNORED`] where the target is. Shapes: `logits` `[R, rows, classes]`, `target_class`,
/// `ranks` `[R, rows]`.
pub fn rank<F: Real>(
    p: &Rank,
    replicas: usize,
    logits: &[F],
    target_class: &[u32],
    ranks: &mut [u32],
) {
    let classes = p.classes as usize;
    for at in 0..replicas * p.rows as usize {
        if target_class[at] == IGNORED {
            ranks[at] = IGNORED;
            continue;
        }
        let row = &logits[at * classes..][..classes];
        let place = (target_class[at] as usize).min(classes - 1);
        let own = (row[place], place);
        ranks[at] = (0..classes).filter(|c| order((row[*c], *c), own).is_lt()).count() as u32;
    }
}

/// counts (+)= \[rows of rank 0, rows of rank < k, rows with a target\]. Shapes: `ranks`
/// `[R, rows]`, `counts` `[R, 3]`.
pub fn accuracy(p: &Accuracy, replicas: usize, ranks: &[u32], counts: &mut [u32]) {
    let rows = p.rows as usize;
    for r in 0..replicas {
        let counts = &mut counts[3 * r..][..3];
        if p.accumulate == 0 {
            counts.fill(0);
        }
        for rank in &ranks[r * rows..][..rows] {
            counts[0] += u32::from(*rank == 0);
            counts[1] += u32::from(*rank < p.k);
            counts[2] += u32::from(*rank != IGNORED);
        }
    }
}

/// The k largest of each row, largest first, ties by the lower index. Shapes: `x`
/// `[R, rows, classes]`, `values`, `places` `[R, rows, k]`.
pub fn top_k<F: Real>(p: &TopK, replicas: usize, x: &[F], values: &mut [F], places: &mut [u32]) {
    let (classes, k) = (p.classes as usize, p.k as usize);
    for at in 0..replicas * p.rows as usize {
        let row = &x[at * classes..][..classes];
        let mut sorted: Vec<usize> = (0..classes).collect();
        sorted.sort_by(|a, b| order((row[*a], *a), (row[*b], *b)));
        for (i, place) in sorted.into_iter().take(k).enumerate() {
            values[at * k + i] = row[place];
            places[at * k + i] = place as u32;
        }
    }
}

row_kernel! {
    /// How many classes come before each row's target.
    RANK = "metrics/rank", Rank;
    bindings: [logits: read f32, target_class: read u32, ranks: write u32];
    reference: rank;
    source: "metrics/rank.wgsl";
    group: [BEST];
    single: [BEST];
    rows: |p| p.rows;
    length: |p| p.classes;
    passes: |_| 1;
}

row_kernel! {
    /// Counts of top-1 hits, top-k hits and rows with a target.
    ACCURACY = "metrics/accuracy", Accuracy;
    bindings: [ranks: read u32, counts: write u32];
    reference: accuracy;
    source: "metrics/accuracy.wgsl";
    rows: |_| 1;
    length: |p| p.rows;
    passes: |_| 1;
}

row_kernel! {
    /// Values and places of the k largest of each row.
    TOP_K = "metrics/top_k", TopK;
    bindings: [x: read f32, values: write f32, places: write u32];
    reference: top_k;
    source: "metrics/top_k.wgsl";
    group: [BEST, BEST_GROUP];
    single: [BEST, BEST_SINGLE];
    rows: |p| p.rows;
    length: |p| p.classes;
    passes: |p| p.k + 1;
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[RANK.any(), ACCURACY.any(), TOP_K.any()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index() {
        let x = [1.0f64, 3.0, 3.0, 2.0, f64::NEG_INFINITY];
        let (mut values, mut places) = ([0.0; 5], [0; 5]);
        top_k(&TopK { rows: 1, classes: 5, k: 5 }, 1, &x, &mut values, &mut places);
        assert_eq!(places, [1, 2, 3, 0, 4]);
        assert_eq!(values, [3.0, 3.0, 2.0, 1.0, f64::NEG_INFINITY]);
        for (expected, place) in places.iter().enumerate() {
            let mut found = [9];
            rank(&Rank { rows: 1, classes: 5 }, 1, &x, &[*place], &mut found);
            assert_eq!(found, [expected as u32], "rank and top-k agree");
        }
    }

    #[test]
    fn counts_grow_from_batch_to_batch() {
        let mut counts = [5; 6];
        let ranks = [0, 2, IGNORED, 0, 3, 1];
        accuracy(&Accuracy { rows: 3, k: 3, accumulate: 0 }, 2, &ranks, &mut counts);
        assert_eq!(counts, [1, 2, 2, 1, 2, 3]);
        accuracy(&Accuracy { rows: 3, k: 3, accumulate: 1 }, 2, &ranks, &mut counts);
        assert_eq!(counts, [2, 4, 4, 2, 4, 6]);
    }
}
