//! Places of connections: how many there are, and who gives way where all are taken.
//!
//! Then a newcomer takes the place of the oldest guest, a connection on which no enrolled client has
//! come, of the address that holds most of all: who opens many connections, from however many
//! addresses, shuts out neither those who hold fewer nor addresses from which enrolled clients came.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tern_host::descriptors;

use super::limits::Limits;
use super::metrics::Metrics;

/// How long an address is known after a request of an enrolled client.
const KNOWN: Duration = Duration::from_secs(3600);
/// Addresses that are known at most.
const MOST_KNOWN: usize = 1 << 16;
/// Files that a server has open beside its connections: the journal's, bodies, models.
const FILES: usize = 128;

/// Places of connections, in all and of an address.
pub(super) struct Places {
    most: usize,
    per_address: usize,
    taken: Mutex<Taken>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// Places so far, by which they are numbered.
    numbered: u64,
    /// At most as many addresses as connections.
    of: HashMap<IpAddr, Held>,
    /// When an enrolled client's request came from there last.
    known: HashMap<IpAddr, Instant>,
}

/// Places of an address.
#[derive(Default)]
struct Held {
    count: usize,
    /// Those on which no enrolled client has come, by their numbers.
    guests: BTreeMap<u64, Arc<Cut>>,
}

impl Taken {
    fn is_known(&self, address: &IpAddr) -> bool {
        self.known.get(address).is_some_and(|since| since.elapsed() < KNOWN)
    }

    /// Gives a guest's place back for an address that holds `here` places; false if nobody has to
    /// give way to it.
    fn make_room(&mut self, address: &IpAddr, here: usize) -> bool {
        let is_known = self.is_known(address);
        let gives_way = |(other, held): &(&IpAddr, &Held)| {
            // An address that is known gives way to no other, however many places it holds.
            let is_fair = match (is_known, self.is_known(other)) {
                (true, false) => true,
                (false, true) => false,
                (true, true) | (false, false) => held.count >= here + 2,
            };
            is_fair && !held.guests.is_empty()
        };
        let most = self.of.iter().filter(gives_way).max_by_key(|(_, held)| held.count);
        let guest = most.and_then(|(other, held)| Some((*other, *held.guests.keys().next()?)));
        let Some((other, number)) = guest else { return false };
        if let Some(cut) = self.of.get_mut(&other).and_then(|held| held.guests.remove(&number)) {
            cut.set();
        }
        self.leave(&other);
        true
    }

    fn leave(&mut self, address: &IpAddr) {
        self.all -= 1;
        if let Some(held) = self.of.get_mut(address) {
            held.count -= 1;
            if held.count == 0 {
                self.of.remove(address);
            }
        }
    }
}

/// Whether a connection has lost its place, and who is to be told.
#[derive(Default)]
struct Cut {
    is_set: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Cut {
    fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.inspect(Waker::wake_by_ref);
    }

    fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }
}

impl Places {
    pub fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        // Without a file left the journal could not go on.
        let files = descriptors::raise().unwrap_or(usize::MAX).saturating_sub(FILES).max(1);
        let most = limits.connections.min(files);
        if most < limits.connections {
            let asked = limits.connections;
            tracing::warn!(most, asked, "fewer connections than limits say: open files are few");
        }
        let per_address = limits.connections_per_address;
        Places { most, per_address, taken: Mutex::default(), metrics }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address, if there is one for it.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Visit> {
        let mut taken = self.lock();
        let here = taken.of.get(&address).map_or(0, |held| held.count);
        if here >= self.per_address || taken.all >= self.most && !taken.make_room(&address, here) {
            return None;
        }
        taken.all += 1;
        taken.numbered += 1;
        let (number, cut) = (taken.numbered, Arc::<Cut>::default());
        let held = taken.of.entry(address).or_default();
        held.count += 1;
        held.guests.insert(number, cut.clone());
        self.metrics.connections.inc();
        let (places, since, enrolled) = (self.clone(), Instant::now(), AtomicBool::new(false));
        Some(Visit(Arc::new(Place { places, address, number, cut, since, enrolled })))
    }
}

/// A connection's place, given back when the last of these is dropped.
#[derive(Clone)]
pub(super) struct Visit(Arc<Place>);

struct Place {
    places: Arc<Places>,
    address: IpAddr,
    number: u64,
    cut: Arc<Cut>,
    since: Instant,
    /// Whether an enrolled client has signed a request on it.
    enrolled: AtomicBool,
}

impl Visit {
    pub fn metrics(&self) -> &Metrics {
        &self.0.places.metrics
    }

    /// A request of an enrolled client came on it, whose signature holds.
    pub fn is_of_enrolled(&self) {
        let Place { places, address, number, enrolled, .. } = &*self.0;
        enrolled.store(true, Ordering::Relaxed);
        let mut taken = places.lock();
        if let Some(held) = taken.of.get_mut(address) {
            held.guests.remove(number);
        }
        if taken.known.len() >= MOST_KNOWN {
            taken.known.retain(|_, since| since.elapsed() < KNOWN);
        }
        if taken.known.len() < MOST_KNOWN || taken.known.contains_key(address) {
            taken.known.insert(*address, Instant::now());
        }
    }

    /// Whether it is to end after the answer under way, since no enrolled client has come on it
    /// for so long: each request would give it the time of another.
    pub fn is_over(&self, most: Duration) -> bool {
        !self.0.enrolled.load(Ordering::Relaxed) && self.0.since.elapsed() >= most
    }

    /// Whether it has lost its place to another; if not, the task is woken once it does.
    pub fn is_cut(&self, cx: &Context<'_>) -> bool {
        let cut = &self.0.cut;
        *cut.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        cut.is_set()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        // Who was cut off has given it back.
        if !self.cut.is_set() {
            if let Some(held) = taken.of.get_mut(&self.address) {
                held.guests.remove(&self.number);
            }
            taken.leave(&self.address);
        }
        self.places.metrics.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use crate::http::Board;

    use super::*;

    fn places(connections: usize, connections_per_address: usize) -> Arc<Places> {
        let limits = Limits { connections, connections_per_address, ..Limits::default() };
        Arc::new(Places::new(&limits, Arc::new(Metrics::new(Board::new(0)))))
    }

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn is_cut(visit: &Visit) -> bool {
        visit.is_cut(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn places_are_bounded_by_address_and_in_all_and_given_back() {
        let places = places(3, 2);
        let [a, b] = [1, 2].map(address);
        let first = places.take(a).unwrap();
        let _second = places.take(a).unwrap();
        assert!(places.take(a).is_none());
        let _third = places.take(b).unwrap();
        // Nobody has so many more that it must give way.
        assert!(places.take(b).is_none());
        drop(first);
        assert!(places.take(b).is_some());
        assert_eq!(places.metrics.connections.get(), 2);
    }

    #[test]
    fn who_holds_most_gives_way_to_those_who_hold_less() {
        let places = places(32, 32);
        let many: Vec<_> = std::iter::from_fn(|| places.take(address(1))).collect();
        assert_eq!(many.len(), 32);
        let others: Vec<_> = std::iter::from_fn(|| places.take(address(2))).collect();
        assert_eq!(others.len(), 16, "as many as the other has left");
        // The oldest ones.
        assert!(many[..16].iter().all(is_cut) && !many[16..].iter().any(is_cut));
        // Addresses of one connection each, until all places are theirs.
        let each: Vec<_> = (3..60).filter_map(|number| places.take(address(number))).collect();
        assert_eq!(each.len(), 30);
        assert!(places.take(address(99)).is_none());
        drop((many, others, each));
        let taken = places.lock();
        assert_eq!((taken.all, taken.of.len(), places.metrics.connections.get()), (0, 0, 0));
    }

    #[test]
    fn guests_give_way_to_enrolled_clients_and_these_to_nobody() {
        let places = places(8, 8);
        let client = places.take(address(99)).unwrap();
        client.is_of_enrolled();
        let each: Vec<_> = (1..9).filter_map(|number| places.take(address(number))).collect();
        assert_eq!(each.len(), 7);
        // Another client behind the same address, which is not known by itself yet.
        let second = places.take(address(99)).unwrap();
        // Before its request is there it is a guest, but one of an address that is known.
        assert!(places.take(address(50)).is_none() && !is_cut(&second));
        second.is_of_enrolled();
        assert_eq!(each.iter().filter(|visit| is_cut(visit)).count(), 1);
        let clients: Vec<_> = std::iter::from_fn(|| places.take(address(99)))
            .inspect(Visit::is_of_enrolled)
            .collect();
        assert!(clients.len() == 6 && each.iter().all(is_cut));
        assert!(places.take(address(1)).is_none());
        assert!(!is_cut(&client) && !clients.iter().any(is_cut));
    }

    #[test]
    fn a_connection_of_nobody_enrolled_ends() {
        let places = places(32, 32);
        let visit = places.take(address(1)).unwrap();
        assert!(!visit.is_over(Duration::MAX) && visit.is_over(Duration::ZERO));
        visit.is_of_enrolled();
        assert!(!visit.is_over(Duration::ZERO));
    }
}
