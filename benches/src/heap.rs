//! What this process holds on the heap: an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Bytes held now; what [`peak`] says is counted from here.
pub fn mark() -> u64 {
    let held = HELD.load(Relaxed);
    PEAK.store(held, Relaxed);
    held as u64
}

/// Most bytes held at once since [`mark`].
pub fn peak() -> u64 {
    PEAK.load(Relaxed) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Size, rows};

    #[test]
    fn the_peak_holds_what_was_freed() {
        let before = mark();
        drop(std::hint::black_box(vec![1u8; 1 << 22]));
        assert!(peak() - before >= 1 << 22);
    }

    /// All cases of a full run take tens of gigabytes, one after another a few hundred megabytes.
    #[test]
    fn rows_hold_no_data() {
        let before = mark();
        let rows = rows(Size::Full);
        assert!(peak() - before < 1 << 30, "{} bytes", peak() - before);
        for row in rows.iter().filter(|row| row.kernel.name.starts_with("reduce/rows")).take(2) {
            let case = row.case();
            assert_eq!((case.kernel.name, &case.label), (row.kernel.name, &row.label));
            assert_eq!((case.bytes, case.flops), (row.bytes, row.flops));
        }
    }
}
