//! Keeping threads at hand while a sequence of kernels runs.
//!
//! A thread of the pool that finds no work for some microseconds goes to sleep. To wake it takes
//! longer than many kernels do, and may bring it to the core of who woke it, where both share one
//! core's time. So the other threads look for work until the sequence ends, or there was none
//! for [`PATIENCE`].

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::Yield;

/// How long a thread looks for work without finding any before it may sleep.
const PATIENCE: Duration = Duration::from_micros(50);

/// Looks for work between which a thread lets others have its core.
const LOOKS: usize = 16;

/// The threads that are kept at hand; they are let go when it is dropped.
pub(super) struct Crew(Arc<Watch>);

struct Watch {
    /// The thread that runs the sequence, by its index in the pool.
    caller: Option<usize>,
    wanted: usize,
    present: AtomicUsize,
    over: AtomicBool,
}

impl Crew {
    /// The other threads of the pool that the calling thread belongs to; nobody if it is of none.
    pub fn here() -> Self {
        match rayon::current_thread_index() {
            Some(caller) => Crew::of(Some(caller), rayon::current_num_threads() - 1),
            None => Crew::none(),
        }
    }

    /// Nobody.
    pub fn none() -> Self {
        Crew::of(None, 0)
    }

    fn of(caller: Option<usize>, wanted: usize) -> Self {
        Crew(Arc::new(Watch { caller, wanted, present: 0.into(), over: false.into() }))
    }

    /// Has the other threads look for work.
    pub fn call(&self) {
        while self.0.present.load(Ordering::Relaxed) < self.0.wanted {
            self.0.present.fetch_add(1, Ordering::Relaxed);
            let watch = self.0.clone();
            rayon::spawn(move || {
                watch.look();
                watch.present.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

thread_local! {
    /// Whether this thread looks for work already.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

impl Watch {
    /// What is found may be another call, which isn't for this thread, or one that the caller
    /// finds itself while it waits for others.
    fn look(&self) {
        if rayon::current_thread_index() == self.caller || LOOKING.replace(true) {
            return;
        }
        self.look_on();
        LOOKING.set(false);
    }

    fn look_on(&self) {
        let mut last = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            for _ in 0..LOOKS {
                match rayon::yield_now() {
                    Some(Yield::Executed) => last = Instant::now(),
                    _ => spin_loop(),
                }
            }
            if last.elapsed() > PATIENCE {
                return;
            }
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_come_when_called_work_and_leave() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        assert_eq!(Crew::here().0.wanted, 0, "this thread is of no pool");
        let watch = pool.install(|| {
            let crew = Crew::here();
            let visits = AtomicUsize::new(0);
            for _ in 0..3 {
                crew.call();
                // Longer than they are patient.
                std::thread::sleep(2 * PATIENCE);
                rayon::scope(|scope| {
                    for _ in 0..10 {
                        scope.spawn(|_| {
                            visits.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
                assert!(crew.0.present.load(Ordering::Relaxed) <= 3);
            }
            assert_eq!(visits.into_inner(), 30);
            crew.0.clone()
        });
        // A job for each thread, that waits for all others: none is kept back.
        let meeting = std::sync::Barrier::new(4);
        pool.broadcast(|_| meeting.wait());
        assert_eq!((watch.wanted, watch.present.load(Ordering::Relaxed)), (3, 0));
    }
}
