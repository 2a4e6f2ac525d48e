//! Memory that a function needs while it runs: each thread keeps what it lent for the next.

use std::cell::RefCell;

use bytemuck::{Pod, Zeroable};

/// A cache line: what is lent begins at one.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Floats of a line.
pub(super) const LINE: usize = 16;

/// Lends so many floats, and up to two lines more, whatever they hold.
#[inline(always)]
pub(super) fn lend(count: usize, f: impl FnOnce(&mut [f32])) {
    thread_local! {
        static KEPT: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = KEPT.with_borrow_mut(|kept| kept.pop()).unwrap_or_default();
    let lines = count.div_ceil(LINE) + 1;
    if buffer.len() < lines {
        grow(&mut buffer, lines);
    }
    f(bytemuck::cast_slice_mut(&mut buffer[..lines]));
    KEPT.with_borrow_mut(|kept| kept.push(buffer));
}

/// Apart, so that the loops of who borrows have none of it.
#[cold]
#[inline(never)]
fn grow(buffer: &mut Vec<Line>, lines: usize) {
    buffer.resize(lines, Line([0.0; LINE]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_long_enough_and_nobody_elses() {
        lend(100, |outer| {
            outer.fill(1.0);
            lend(1_000, |inner| inner.fill(2.0));
            assert!(outer.len() >= 100 && outer.iter().all(|x| *x == 1.0));
            assert!(outer.as_ptr().addr().is_multiple_of(64));
        });
    }
}
