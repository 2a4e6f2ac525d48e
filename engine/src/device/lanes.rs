//! Threads that take whole sequences of calls, where one call alone is too small to share out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// One pool a lane: what a lane calls shares its work out among the lane's own threads, so that
/// no thread waits for another lane's.
type Pools = Arc<[ThreadPool]>;

/// The pools of `lanes` lanes with `threads` threads each, made once a process. `None` where
/// threads can't be had.
fn pools(lanes: usize, threads: usize) -> Option<Pools> {
    static POOLS: Mutex<BTreeMap<(usize, usize), Pools>> = Mutex::new(BTreeMap::new());
    let mut known = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pools) = known.get(&(lanes, threads)) {
        return Some(pools.clone());
    }
    let build = |lane| {
        let name = move |thread| format!("tern lane {lane}.{thread}");
        ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()
    };
    match (0..lanes).map(build).collect::<Result<Vec<_>, _>>() {
        Ok(pools) => {
            let pools: Pools = pools.into();
            known.insert((lanes, threads), pools.clone());
            Some(pools)
        }
        Err(error) => {
            log::warn!("replicas run one after another: {error}");
            None
        }
    }
}

/// Calls `work` with the number of each lane, all at once, and waits for them.
pub(super) fn each(lanes: usize, work: &(impl Fn(usize) + Sync)) {
    let threads = rayon::current_num_threads() / lanes.max(1);
    let pools = if lanes > 1 { pools(lanes, threads.max(1)) } else { None };
    match pools {
        Some(pools) => from(&pools, 0, work),
        None => work(0),
    }
}

/// Starts lane `lane` and those after it. The calling thread only waits.
fn from(pools: &[ThreadPool], lane: usize, work: &(impl Fn(usize) + Sync)) {
    if let Some(pool) = pools.get(lane) {
        pool.in_place_scope(|scope| {
            scope.spawn(move |_| work(lane));
            from(pools, lane + 1, work);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn lanes_run_at_once_and_each_on_its_own_threads() {
        // Four lanes meet: they can't if one had to wait for another.
        let (barrier, seen) = (Barrier::new(4), Mutex::new(Vec::new()));
        let threads = (rayon::current_num_threads() / 4).max(1);
        each(4, &|lane| {
            barrier.wait();
            assert_eq!(rayon::current_num_threads(), threads);
            seen.lock().unwrap().push(lane);
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3]);
        each(1, &|lane| assert_eq!(lane, 0));
    }
}
