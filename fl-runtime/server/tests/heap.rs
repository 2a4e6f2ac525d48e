//! What a federation holds in memory and in its folder over many rounds. Alone in its process: an
//! allocator counts for all threads.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tern_host::files::Durability;
use tern_protocol::layout::{ModelKind, TensorSpec};
use tern_protocol::update::Codec;
use tern_protocol::{ClientId, Digest, Millis, RunPlan, Turn, wire};
use tern_server::federation::{Federation, Options};

/// Counts what the process holds.
struct Counting;

static HELD: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as u64, Relaxed);
        TAKEN.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Two clients' rounds from `first` on; what is held after them, and what each took.
fn rounds(run: &mut Federation, first: u32, count: u32) -> (u64, u64) {
    let before = TAKEN.load(Relaxed);
    for round in first..first + count {
        let now = Millis(u64::from(round));
        let clients = [1, 2].map(|n| ClientId([n; 32]));
        clients.iter().for_each(|client| drop(run.poll(now, client, 20).unwrap()));
        for client in clients {
            let body = Codec::full(&[0.5; 64]);
            run.upload_append(&client, Turn::new(round, 1), 0, &body).unwrap();
            let (samples, digest) = (20, Digest::of(&body).0.to_vec());
            let metrics = [("loss".to_owned(), f64::from(round))].into();
            let finish =
                wire::Finish { round, attempt: 1, digest, samples, metrics, ..Default::default() };
            run.upload_finish(now, &client, finish).unwrap();
        }
        run.tick(now).unwrap();
        // What the server shows after each round.
        assert_eq!(run.rounds(round - 1).unwrap().len(), 1);
    }
    (HELD.load(Relaxed), (TAKEN.load(Relaxed) - before) / u64::from(count))
}

fn files(folder: &Path) -> usize {
    let entries = |name: &str| std::fs::read_dir(folder.join(name)).unwrap().count();
    ["models", "uploads", "partial"].into_iter().map(entries).sum()
}

#[test]
fn a_round_takes_as_much_after_many_as_after_few() {
    for keep_uploads in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let weights = TensorSpec { name: "w".into(), shape: vec![8, 8] };
        let mut plan = RunPlan::new("weights", ModelKind::Tensors(vec![weights]), u32::MAX);
        (plan.cohort.size, plan.cohort.minimum) = (2, 2);
        let options = Options::default().durability(Durability::None).keep_uploads(keep_uploads);
        let mut run = Federation::open(folder.path(), &plan, &[0.0; 64], options).unwrap();
        for n in [1, 2] {
            run.enroll(Millis(0), ClientId([n; 32]), None).unwrap();
        }
        let (held, took) = rounds(&mut run, 1, 100);
        let kept = files(folder.path());
        let (held_later, took_later) = rounds(&mut run, 101, 900);
        assert!(held_later < held + 4_096, "{held} bytes held, later {held_later}");
        assert!(took_later < took + took / 20, "{took} bytes a round, later {took_later}");
        let expected = kept + usize::from(keep_uploads) * 2 * 900;
        assert_eq!(files(folder.path()), expected, "keep_uploads: {keep_uploads}");
    }
}
