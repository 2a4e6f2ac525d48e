//! Loops over slices of floats and words in vectors; [`vector`](super::vector) has those over
//! floats alone.

use fearless_simd::Simd;
use fearless_simd::prelude::*;

use super::vector::{load, load_part, store, store_part};

/// The first `n` elements, a vector at most, then zeros.
#[inline(always)]
pub(super) fn get<S: Simd, V: SimdBase<S>>(s: S, x: &[V::Element], n: usize) -> V {
    if n == V::LEN { load(s, x) } else { load_part(s, x, n, V::Element::default()) }
}

/// Writes the first `n` elements, a vector at most.
#[inline(always)]
pub(super) fn set<S: Simd, V: SimdBase<S>>(y: &mut [V::Element], n: usize, vector: V) {
    if n == V::LEN { store(y, vector) } else { store_part(y, n, vector) }
}

/// y = f(x, y), a vector of each at a time. `x` is of the length of `y`, or longer. What fills no
/// vector is padded by zeros.
#[inline(always)]
pub(super) fn update<S: Simd, X: SimdBase<S>, Y: SimdBase<S>>(
    s: S,
    x: &[X::Element],
    y: &mut [Y::Element],
    f: impl Fn(X, Y) -> Y,
) {
    const { assert!(X::LEN == Y::LEN, "elements are of one size") };
    let n = y.len();
    let whole = n - n % Y::LEN;
    let (x, last_x) = x[..n].split_at(whole);
    let (y, last_y) = y.split_at_mut(whole);
    for (x, y) in x.chunks_exact(X::LEN).zip(y.chunks_exact_mut(Y::LEN)) {
        let new = f(load(s, x), load(s, y));
        store(y, new);
    }
    if whole < n {
        let new = f(get(s, last_x, n - whole), get(s, last_y, n - whole));
        set(last_y, n - whole, new);
    }
}

/// y = f(x), as [`update`].
#[inline(always)]
pub(super) fn map<S: Simd, X: SimdBase<S>, Y: SimdBase<S>>(
    s: S,
    x: &[X::Element],
    y: &mut [Y::Element],
    f: impl Fn(X) -> Y,
) {
    update(
        s,
        x,
        y,
        #[inline(always)]
        |x, _| f(x),
    );
}

/// y = f(y), as [`update`].
#[inline(always)]
pub(super) fn apply<S: Simd, Y: SimdBase<S>>(s: S, y: &mut [Y::Element], f: impl Fn(Y) -> Y) {
    let n = y.len();
    let (y, last) = y.split_at_mut(n - n % Y::LEN);
    for y in y.chunks_exact_mut(Y::LEN) {
        let new = f(load(s, y));
        store(y, new);
    }
    if !last.is_empty() {
        let new = f(get(s, last, last.len()));
        set(last, last.len(), new);
    }
}

/// Whole vectors with their elements in turn: the first of each, then the second of each. `N` is
/// a power of two. To interleave the vectors of the upper half with those of the lower half makes
/// the highest bit of a vector's number the lowest of its elements' places.
#[inline(always)]
pub(super) fn in_turn<S: Simd, V: SimdBase<S>, const N: usize>(mut x: [V; N]) -> [V; N] {
    const { assert!(N.is_power_of_two()) };
    for _ in 0..N.ilog2() {
        let before = x;
        for i in 0..N / 2 {
            (x[2 * i], x[2 * i + 1]) = before[i].interleave(before[i + N / 2]);
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::super::isa::{Isa, with_vectors};
    use super::*;

    #[inline(always)]
    fn double<S: Simd>(s: S, x: &[u32], y: &mut [u32]) {
        update(
            s,
            x,
            y,
            #[inline(always)]
            |x: S::u32s, y: S::u32s| x + y,
        );
        apply(
            s,
            y,
            #[inline(always)]
            |y: S::u32s| y << 1,
        );
    }

    #[test]
    fn every_element_is_visited_once() {
        for isa in Isa::available() {
            for n in [0u32, 1, 3, 4, 15, 16, 17, 100] {
                let x: Vec<u32> = (0..n + 1).collect();
                let mut y = vec![1; n as usize];
                with_vectors!(isa.level().unwrap(), s => double(s, &x, &mut y));
                let expected: Vec<u32> = (0..n).map(|x| 2 * (x + 1)).collect();
                assert_eq!(y, expected, "{isa} {n}");
            }
        }
    }

    /// The places of `N` vectors' elements, whose number is in the upper bits before and in the
    /// lower ones after.
    #[inline(always)]
    fn places<S: Simd, const N: usize>(s: S) -> Vec<(u32, u32)> {
        let before: [S::u32s; N] = std::array::from_fn(
            #[inline(always)]
            |i| {
                S::u32s::from_fn(
                    s,
                    #[inline(always)]
                    |k| (N * k + i) as u32,
                )
            },
        );
        let after = in_turn::<S, S::u32s, N>(before);
        (0u32..).zip(after.iter().flat_map(|v| v.as_slice().to_vec())).collect()
    }

    #[test]
    fn elements_in_turn() {
        for isa in Isa::available() {
            let few = with_vectors!(isa.level().unwrap(), s => places::<_, 4>(s));
            let many = with_vectors!(isa.level().unwrap(), s => places::<_, 16>(s));
            assert!(few.into_iter().chain(many).all(|(at, from)| at == from), "{isa}");
        }
    }
}
