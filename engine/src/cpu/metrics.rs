//! Ranks and hits by counting, the largest by insertion, of narrow rows in a lane each.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::loss::IGNORED;
use tern_shaders::kernels::metrics::{Accuracy, Rank, TopK};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::loss::known;
use super::parallel::{rows, rows2};
use super::planes::{NARROW, NO_PLANES, ROWS, join, split};
use super::vector::{lanes, load, splat, store, tally};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("metrics/rank", rank), ("metrics/accuracy", accuracy), ("metrics/top_k", top_k)];

/// Elements above `own`, which is a number; NaN is above all numbers.
#[inline(always)]
fn above<S: Simd>(s: S, x: &[f32], own: f32) -> u32 {
    let (own, zero, one) = (splat(s, own), S::u32s::splat(s, 0), S::u32s::splat(s, 1));
    tally(
        s,
        x,
        #[inline(always)]
        |x: S::f32s| x.simd_le(own).select(zero, one),
    )
}

/// Elements that are not below `own`.
#[inline(always)]
fn not_below<S: Simd>(s: S, x: &[f32], own: f32) -> u32 {
    let (own, zero, one) = (splat(s, own), S::u32s::splat(s, 0), S::u32s::splat(s, 1));
    tally(
        s,
        x,
        #[inline(always)]
        |x: S::f32s| x.simd_lt(own).select(zero, one),
    )
}

/// Ranks of the targets of narrow rows.
#[inline(always)]
fn narrow_ranks<S: Simd>(s: S, x: &[f32], target: &[u32], classes: usize, ranks: &mut [u32]) {
    let mut planes = NO_PLANES;
    let (mut places, mut own, mut found) = ([0; ROWS], [0.0; ROWS], [0; ROWS]);
    let (zero, one) = (S::u32s::splat(s, 0), S::u32s::splat(s, 1));
    let (ignored, last) = (S::u32s::splat(s, IGNORED), S::u32s::splat(s, classes as u32 - 1));
    let blocks = x.chunks(ROWS * classes).zip(target.chunks(ROWS));
    for ((x, target), ranks) in blocks.zip(ranks.chunks_mut(ROWS)) {
        let n = ranks.len();
        places[..n].copy_from_slice(&target[..n]);
        for ((own, x), target) in own.iter_mut().zip(x.chunks_exact(classes)).zip(target) {
            *own = x[(*target as usize).min(classes - 1)];
        }
        split(s, x, classes, &mut planes);
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let (own, target) =
                (load::<S, S::f32s>(s, &own[at..]), load::<S, S::u32s>(s, &places[at..]));
            let place = target.min(last);
            let mut rank = zero;
            for c in 0..classes {
                let x = load::<S, S::f32s>(s, &planes[c * ROWS + at..]);
                // On a tie the lower place comes first.
                let before = place.simd_gt(S::u32s::splat(s, c as u32));
                // NaN is above all numbers, and as large as NaN.
                let number = own.simd_eq(own);
                rank += (number & !x.simd_le(own)).select(one, zero);
                let equal = x.simd_eq(own) | (!number & !x.simd_eq(x));
                rank += (before & equal).select(one, zero);
            }
            store(&mut found[at..], target.simd_eq(ignored).select(ignored, rank));
        }
        ranks.copy_from_slice(&found[..n]);
    }
}

fn rank(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rank = bytemuck::from_bytes(p);
    let [logits, target, ranks] = args else { unreachable!("three bindings") };
    let (logits, target, classes) = (logits.real(), target.word(), p.classes as usize);
    rows(ranks.word_mut(), 1, classes, |first, ranks| {
        let x = &logits[first * classes..][..ranks.len() * classes];
        let target = &target[first..][..ranks.len()];
        with_vectors!(s => if classes <= NARROW {
            narrow_ranks(s, x, target, classes, ranks);
        } else {
            for ((rank, row), target) in ranks.iter_mut().zip(x.chunks_exact(classes)).zip(target) {
                *rank = match *target {
                    IGNORED => IGNORED,
                    class => {
                        let place = (class as usize).min(classes - 1);
                        let own = row[place];
                        match own.is_nan() {
                            true => row[..place].iter().filter(|x| x.is_nan()).count() as u32,
                            false => {
                                not_below(s, &row[..place], own) + above(s, &row[place + 1..], own)
                            }
                        }
                    }
                };
            }
        });
    });
}

/// Words that a thread counts at once.
const PART: usize = 1 << 16;

/// Ranks below `k`.
#[inline(always)]
fn below<S: Simd>(s: S, ranks: &[u32], k: u32) -> u32 {
    let (k, zero, one) = (S::u32s::splat(s, k), S::u32s::splat(s, 0), S::u32s::splat(s, 1));
    tally(
        s,
        ranks,
        #[inline(always)]
        |rank: S::u32s| rank.simd_lt(k).select(one, zero),
    )
}

fn accuracy(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Accuracy = bytemuck::from_bytes(p);
    let [ranks, counts] = args else { unreachable!("two bindings") };
    let (ranks, n) = (ranks.word(), p.rows as usize);
    for (r, counts) in counts.word_mut()[..3 * replicas].chunks_exact_mut(3).enumerate() {
        // A part is read once from memory, then from the cache.
        let count = |ranks: &[u32]| with_vectors!(s => [below(s, ranks, 1), below(s, ranks, p.k), known(s, ranks)]);
        let add = |a: [u32; 3], b: [u32; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
        let parts = ranks[r * n..][..n].par_chunks(PART).map(count);
        let found = parts.reduce(|| [0; 3], add);
        if p.accumulate == 0 {
            counts.fill(0);
        }
        counts.iter_mut().zip(found).for_each(|(count, found)| *count += found);
    }
}

/// Whether a comes before b whatever their places; NaN before all numbers.
#[inline(always)]
fn ahead(a: f32, b: f32) -> bool {
    a > b || a.is_nan() && !b.is_nan()
}

/// Puts an element among the largest before it, of which there are `found`.
#[inline(always)]
fn insert(value: f32, place: u32, found: &mut usize, values: &mut [f32], places: &mut [u32]) {
    let k = values.len();
    if *found == k && !ahead(value, values[k - 1]) {
        return;
    }
    // Behind every element that is as large, since that has the lower place.
    let mut at = if *found < k { *found } else { k - 1 };
    while at > 0 && ahead(value, values[at - 1]) {
        values[at] = values[at - 1];
        places[at] = places[at - 1];
        at -= 1;
    }
    values[at] = value;
    places[at] = place;
    *found = (*found + 1).min(k);
}

/// The largest of a wide row: few vectors have one that is ahead of the last of them.
#[inline(always)]
fn wide_top_k<S: Simd>(s: S, row: &[f32], values: &mut [f32], places: &mut [u32]) {
    let (k, mut found) = (values.len(), 0);
    for (i, part) in row.chunks(lanes::<S>()).enumerate() {
        let full = found == k && part.len() == lanes::<S>();
        if full && load::<S, S::f32s>(s, part).simd_le(splat(s, values[k - 1])).all_true() {
            continue;
        }
        for (place, value) in (i * lanes::<S>()..).zip(part) {
            insert(*value, place as u32, &mut found, values, places);
        }
    }
}

/// The largest of narrow rows, a row a lane.
#[inline(always)]
fn narrow_top_k<S: Simd>(
    s: S,
    x: &[f32],
    (classes, k): (usize, usize),
    values: &mut [f32],
    places: &mut [u32],
) {
    let (mut planes, mut best) = (NO_PLANES, NO_PLANES);
    let mut best_places = [0u32; NARROW * ROWS];
    let blocks = values.chunks_mut(ROWS * k).zip(places.chunks_mut(ROWS * k));
    for (x, (values, places)) in x.chunks(ROWS * classes).zip(blocks) {
        split(s, x, classes, &mut planes);
        for at in (0..ROWS).step_by(lanes::<S>()) {
            for c in 0..classes {
                let mut value: S::f32s = load(s, &planes[c * ROWS + at..]);
                let mut place = S::u32s::splat(s, c as u32);
                // From where it is ahead on, all others move by one.
                let mut moves = value.simd_lt(value);
                for held_at in (0..c.min(k)).map(|j| j * ROWS + at) {
                    let held: S::f32s = load(s, &best[held_at..]);
                    let held_place: S::u32s = load(s, &best_places[held_at..]);
                    // NaN is ahead of all numbers.
                    let ahead = !value.simd_le(held) & held.simd_eq(held);
                    moves |= ahead;
                    store(&mut best[held_at..], moves.select(value, held));
                    store(&mut best_places[held_at..], moves.select(place, held_place));
                    value = moves.select(held, value);
                    place = moves.select(held_place, place);
                }
                if c < k {
                    store(&mut best[c * ROWS + at..], value);
                    store(&mut best_places[c * ROWS + at..], place);
                }
            }
        }
        join(s, &best, k, false, values);
        // Vectors move floats; their bits stay.
        join(s, bytemuck::cast_ref(&best_places), k, false, bytemuck::cast_slice_mut(places));
    }
}

fn top_k(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &TopK = bytemuck::from_bytes(p);
    let [x, values, places] = args else { unreachable!("three bindings") };
    let (x, classes, k) = (x.real(), p.classes as usize, p.k as usize);
    let (values, places) = (values.real_mut(), places.word_mut());
    rows2((values, k), (places, k), classes, |first, values, places| {
        let x = &x[first * classes..][..values.len() / k * classes];
        with_vectors!(s => if classes <= NARROW {
            narrow_top_k(s, x, (classes, k), values, places);
        } else {
            let rows = values.chunks_exact_mut(k).zip(places.chunks_exact_mut(k));
            for (row, (values, places)) in x.chunks_exact(classes).zip(rows) {
                wide_top_k(s, row, values, places);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use tern_shaders::kernels::metrics as reference;
    use tern_shaders::kernels::random::pcg4d;

    use super::super::isa::Isa;
    use super::*;

    /// Few different values, so that there are ties, and what is no number.
    fn value(i: usize) -> f32 {
        match pcg4d([i as u32, 7, 0, 0])[0] % 11 {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            other => other as f32 - 6.0,
        }
    }

    #[test]
    fn the_largest_of_rows_are_the_references_on_every_instruction_set() {
        for (rows, classes, k) in [
            (3, 1, 1),
            (70, 2, 2),
            (65, 10, 5),
            (130, 32, 16),
            (5, 33, 3),
            (4, 100, 16),
            (2, 700, 1),
        ] {
            let x: Vec<f32> = (0..rows * classes).map(value).collect();
            let p = TopK { rows: rows as u32, classes: classes as u32, k: k as u32 };
            let (mut expected, mut expected_places) = (vec![0.0; rows * k], vec![0; rows * k]);
            reference::top_k(&p, 1, &x, &mut expected, &mut expected_places);
            for isa in Isa::available() {
                let (mut values, mut places) = (vec![9.0f32; rows * k], vec![99; rows * k]);
                with_vectors!(isa.level().unwrap(), s => if classes <= NARROW {
                    narrow_top_k(s, &x, (classes, k), &mut values, &mut places);
                } else {
                    let rows = values.chunks_exact_mut(k).zip(places.chunks_exact_mut(k));
                    for (row, (values, places)) in x.chunks_exact(classes).zip(rows) {
                        wide_top_k(s, row, values, places);
                    }
                });
                assert_eq!(places, expected_places, "{isa}: {rows} × {classes}, {k}");
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&values), bits(&expected), "{isa}: {rows} × {classes}, {k}");
            }
        }
    }
}
