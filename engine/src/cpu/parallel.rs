//! Sharing rows out among threads. Which thread computes a row changes nothing in it.

use rayon::prelude::*;

/// Element visits below which another thread costs more than it saves.
const GRAIN: usize = 1 << 15;

/// Calls `f` with parts of `a` and `b` that hold the same rows, and the number of the first:
/// rows of `a_width` and `b_width` elements, each about `work` element visits.
pub(crate) fn rows2<A: Send, B: Send>(
    (a, a_width): (&mut [A], usize),
    (b, b_width): (&mut [B], usize),
    work: usize,
    f: impl Fn(usize, &mut [A], &mut [B]) + Send + Sync,
) {
    if a.is_empty() {
        return;
    }
    let part = GRAIN.div_ceil(work.max(1));
    if a.len() <= part * a_width {
        return f(0, a, b);
    }
    a.par_chunks_mut(part * a_width)
        .zip(b.par_chunks_mut(part * b_width))
        .enumerate()
        .for_each(|(i, (a, b))| f(i * part, a, b));
}

/// [`rows2`] with one slice.
pub(crate) fn rows<A: Send>(
    a: &mut [A],
    width: usize,
    work: usize,
    f: impl Fn(usize, &mut [A]) + Send + Sync,
) {
    let mut nothing = vec![(); a.len() / width.max(1)];
    rows2((a, width), (&mut nothing, 1), work, |first, a, _| f(first, a));
}

/// Overwrites or adds, by a kernel's `accumulate` flag.
#[inline(always)]
pub(crate) fn put(y: &mut f32, value: f32, accumulate: bool) {
    *y = if accumulate { *y + value } else { value };
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
