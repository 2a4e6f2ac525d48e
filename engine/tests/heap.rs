//! What a step takes from the heap. Alone in its process: an allocator counts for all threads.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use common::models::{char_lstm, classifier, convolutions, language_model};
use tern_engine::Device;
use tern_engine::nn::ModelSpec;

/// Counts what the process takes from the heap.
struct Counting;

static TAKEN: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Bookkeeping, what matrix products and convolutions pack, and images with their padding; in kibibytes for two threads, of which each has its own. How much is packed at a time follows
/// the processor's caches.
#[test]
fn steps_on_the_cpu_take_little_from_the_heap() {
    let cpu = Device::cpu();
    let models = [
        ("char-lstm", char_lstm(&cpu, 64, 20), 1_500),
        ("word-lm", language_model(&cpu, [1_000, 64, 64, 1], 20, 16), 3_000),
        ("mlp", classifier(&cpu, &ModelSpec::mlp(784, &[256, 128], 10), 64), 1_500),
        ("cnn", classifier(&cpu, &convolutions(), 32), 24_000),
    ];
    let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2) as u64;
    let mut over = Vec::new();
    for (name, mut plan, most) in models {
        plan.run(2).unwrap();
        // How work is shared out differs from step to step: of four, the one that took least.
        let step = |_| {
            let before = TAKEN.load(Relaxed);
            plan.run(1).unwrap();
            (TAKEN.load(Relaxed) - before) / 1024
        };
        let kibibytes = (0..4).map(step).min().unwrap();
        if kibibytes > most * threads / 2 {
            over.push(format!("{name}: {kibibytes} KiB a step, {most} allowed"));
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}
