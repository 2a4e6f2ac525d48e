//! Sharing rows out among threads. Which thread computes a row changes nothing in it.

use std::ops::Range;

use rayon::prelude::*;

use super::vector::MAX_LANES;

/// Element visits below which another thread costs more than it saves.
const GRAIN: usize = 1 << 15;

/// Parts that a thread takes of what is long: few, since memory is fastest where it is read on
/// and on, and more than one, so that no thread waits long for another.
const PARTS: usize = 4;

/// Calls `f` with the number of a row and parts of `a`, `b` and `c` that start with it: rows of
/// `a_width`, `b_width` and `c_width` elements, each about `work` element visits.
pub(crate) fn rows3<A: Send, B: Send, C: Send>(
    (a, a_width): (&mut [A], usize),
    (b, b_width): (&mut [B], usize),
    (c, c_width): (&mut [C], usize),
    work: usize,
    f: impl Fn(usize, &mut [A], &mut [B], &mut [C]) + Send + Sync,
) {
    if a.is_empty() {
        return;
    }
    let part = GRAIN.div_ceil(work.max(1));
    if a.len() <= part * a_width {
        return f(0, a, b, c);
    }
    let even = a.len().div_ceil(a_width * PARTS * rayon::current_num_threads());
    let mut part = part.max(even);
    if part > MAX_LANES {
        // Whole vectors, of single elements too.
        part = part.next_multiple_of(MAX_LANES);
    }
    a.par_chunks_mut(part * a_width)
        .zip(b.par_chunks_mut(part * b_width))
        .zip(c.par_chunks_mut(part * c_width))
        .enumerate()
        .for_each(|(i, ((a, b), c))| f(i * part, a, b, c));
}

/// [`rows3`] with two slices.
pub(crate) fn rows2<A: Send, B: Send>(
    (a, a_width): (&mut [A], usize),
    b: (&mut [B], usize),
    work: usize,
    f: impl Fn(usize, &mut [A], &mut [B]) + Send + Sync,
) {
    let mut nothing = vec![(); a.len().div_ceil(a_width.max(1))];
    rows3((a, a_width), b, (&mut nothing, 1), work, |first, a, b, _| f(first, a, b));
}

/// [`rows3`] with one slice.
pub(crate) fn rows<A: Send>(
    a: &mut [A],
    width: usize,
    work: usize,
    f: impl Fn(usize, &mut [A]) + Send + Sync,
) {
    let mut nothing = vec![(); a.len().div_ceil(width.max(1))];
    rows2((a, width), (&mut nothing, 1), work, |first, a, _| f(first, a));
}

/// Cuts rows `first..first + count` into runs of one replica, of `per` rows: calls `f` with the replica and the
/// run, counted from `first`.
pub(crate) fn by_replica(
    first: usize,
    count: usize,
    per: usize,
    mut f: impl FnMut(usize, Range<usize>),
) {
    let mut at = 0;
    while at < count {
        let replica = (first + at) / per;
        let end = count.min((replica + 1) * per - first);
        f(replica, at..end);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_visited_once_with_its_number() {
        for count in [0, 1, 7, 5000] {
            let mut a = vec![0usize; 3 * count];
            let mut b = vec![0usize; count];
            rows2((&mut a, 3), (&mut b, 1), 100, |first, a, b| {
                for (i, (a, b)) in a.chunks_mut(3).zip(b).enumerate() {
                    a[2] += first + i;
                    *b += 1;
                }
            });
            assert!(b.iter().all(|visits| *visits == 1));
            assert!(a.chunks(3).enumerate().all(|(i, row)| row == [0, 0, i]));
        }
    }
}
