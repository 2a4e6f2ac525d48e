//! Threads that take whole sequences of calls, where one call alone is too small to share out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// One pool a worker: what a worker calls shares its work out among the worker's own threads, so that
/// no thread waits for another worker's.
type Pools = Arc<[ThreadPool]>;

/// The pools of `workers` workers with `threads` threads each, made once a process. `None` where
/// threads can't be had.
fn pools(workers: usize, threads: usize) -> Option<Pools> {
    static POOLS: Mutex<BTreeMap<(usize, usize), Pools>> = Mutex::new(BTreeMap::new());
    let mut known = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pools) = known.get(&(workers, threads)) {
        return Some(pools.clone());
    }
    let build = |worker| {
        let name = move |thread| format!("tern worker {worker}.{thread}");
        ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()
    };
    match (0..workers).map(build).collect::<Result<Vec<_>, _>>() {
        Ok(pools) => {
            let pools: Pools = pools.into();
            known.insert((workers, threads), pools.clone());
            Some(pools)
        }
        Err(error) => {
            log::warn!("replicas run one after another: {error}");
            None
        }
    }
}

/// Calls `work` with the number of each worker, all at once, and waits for them.
pub(super) fn each(workers: usize, work: &(impl Fn(usize) + Sync)) {
    let threads = rayon::current_num_threads() / workers.max(1);
    let pools = if workers > 1 { pools(workers, threads.max(1)) } else { None };
    match pools {
        Some(pools) => from(&pools, 0, work),
        None => work(0),
    }
}

/// Starts worker `worker` and those after it. The calling thread only waits.
fn from(pools: &[ThreadPool], worker: usize, work: &(impl Fn(usize) + Sync)) {
    if let Some(pool) = pools.get(worker) {
        pool.in_place_scope(|scope| {
            scope.spawn(move |_| work(worker));
            from(pools, worker + 1, work);
        });
    }
}

/// How sequences are shared out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shares {
    /// One after another, each on all threads.
    pub together: Vec<usize>,
    /// A worker each, in this order: a worker that is done with one takes the next.
    pub alone: Vec<usize>,
}

/// Shares sequences out such that all are done soonest, by what each costs. `gain` is by how much
/// all threads are faster at one sequence than a worker is. Long ones start first, so that no worker
/// is left with one when the others are done; the longest of all are computed together where
/// workers would have to wait for them.
pub(super) fn share(costs: &[u64], workers: usize, gain: f64) -> Shares {
    let mut order: Vec<usize> = (0..costs.len()).filter(|i| costs[*i] > 0).collect();
    order.sort_by_key(|i| std::cmp::Reverse(costs[*i]));
    let end = |together: usize| {
        let (first, rest) = order.split_at(together);
        let mut busy = vec![0; workers.max(1)];
        for i in rest {
            if let Some(least) = busy.iter_mut().min() {
                *least += costs[*i];
            }
        }
        let together: u64 = first.iter().map(|i| costs[*i]).sum();
        together as f64 / gain + busy.into_iter().max().unwrap_or(0) as f64
    };
    let best = (0..=order.len()).min_by(|a, b| end(*a).total_cmp(&end(*b))).unwrap_or(0);
    let alone = order.split_off(best);
    Shares { together: order, alone }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn sequences_are_shared_out_so_that_no_lane_waits_long() {
        let shared = |costs: &[u64], gain| {
            let Shares { together, alone } = share(costs, 2, gain);
            (together, alone)
        };
        assert_eq!(shared(&[1, 5, 0, 3], 1.0), (vec![], vec![1, 3, 0]));
        // Ten of a size go in pairs; of three, one is computed by all threads.
        assert_eq!(shared(&[4; 10], 1.8), (vec![], (0..10).collect()));
        assert_eq!(shared(&[4; 3], 1.8), (vec![0], vec![1, 2]));
        assert_eq!(shared(&[4; 3], 1.0), (vec![], vec![0, 1, 2]));
        // Nobody waits for the one that is longer than all others.
        assert_eq!(shared(&[1, 1, 9], 1.8), (vec![2], vec![0, 1]));
        assert_eq!(shared(&[7], 1.8), (vec![0], vec![]));
        assert_eq!(shared(&[], 1.8), (vec![], vec![]));
    }

    #[test]
    fn lanes_run_at_once_and_each_on_its_own_threads() {
        // Four workers meet: they can't if one had to wait for another.
        let (barrier, seen) = (Barrier::new(4), Mutex::new(Vec::new()));
        let threads = (rayon::current_num_threads() / 4).max(1);
        each(4, &|worker| {
            barrier.wait();
            assert_eq!(rayon::current_num_threads(), threads);
            seen.lock().unwrap().push(worker);
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3]);
        each(1, &|worker| assert_eq!(worker, 0));
    }
}
