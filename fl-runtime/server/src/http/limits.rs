//! What the server takes of one client, of one address, and in all.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use tern_protocol::Millis;

/// Limits on what arrives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Most bytes of a request's body other than a piece of an upload.
    pub message_bytes: usize,
    /// Most bytes of a piece of an upload or of a download; pieces are smaller while memory is
    /// short, down to half a MiB.
    pub piece_bytes: usize,
    /// Most bytes of pieces and messages that are under way at a time.
    pub held_bytes: usize,
    /// Most of these from and to an address.
    pub held_bytes_per_address: usize,
    /// Most connections at a time.
    pub connections: usize,
    /// Most connections at a time from an address.
    pub connections_per_address: usize,
    /// TLS handshakes a second that an address may begin for long; many clients may share one.
    pub handshakes_per_address: f64,
    /// Requests a second that a client may send for long.
    pub requests_per_client: f64,
    /// Bytes a second that a client may send and fetch for long.
    pub bytes_per_client: u64,
    /// Requests a second that an address may send for long; many clients may share one.
    pub requests_per_address: f64,
    /// Seconds' worth of requests, and of bytes, that may come at once.
    pub burst_seconds: f64,
    /// Seconds within which a TLS handshake, or a request's header, must be there: as long may a
    /// connection be idle.
    pub header_seconds: f64,
    /// Seconds after which a connection ends on which no enrolled client has come.
    pub guest_seconds: f64,
    /// Seconds that a body or a response may stand still.
    pub stall_seconds: f64,
    /// Bytes a second below which a body or a response stands still.
    pub min_bytes_per_second: u64,
    /// Seconds that a request's time may differ from the server's.
    pub clock_seconds: f64,
    /// Longest wait, in seconds, of a poll for which there is nothing to do.
    pub poll_seconds: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes: 1 << 20,
            piece_bytes: 4 << 20,
            held_bytes: 32 << 20,
            held_bytes_per_address: 8 << 20,
            connections: 4096,
            connections_per_address: 1024,
            handshakes_per_address: 100.0,
            requests_per_client: 20.0,
            bytes_per_client: 32 << 20,
            requests_per_address: 500.0,
            burst_seconds: 5.0,
            header_seconds: 10.0,
            guest_seconds: 60.0,
            stall_seconds: 20.0,
            min_bytes_per_second: 8 << 10,
            clock_seconds: 60.0,
            poll_seconds: 25.0,
        }
    }
}

impl Limits {
    /// The first limit that can't be, with what was expected.
    ///
    /// # Errors
    /// The field, its value, and what was expected.
    pub fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        let counts = [
            ("message_bytes", self.message_bytes as u64),
            ("piece_bytes", self.piece_bytes as u64),
            ("held_bytes", self.held_bytes as u64),
            ("held_bytes_per_address", self.held_bytes_per_address as u64),
            ("connections", self.connections as u64),
            ("connections_per_address", self.connections_per_address as u64),
            ("bytes_per_client", self.bytes_per_client),
            ("min_bytes_per_second", self.min_bytes_per_second),
        ];
        let numbers = [
            ("handshakes_per_address", self.handshakes_per_address),
            ("requests_per_client", self.requests_per_client),
            ("requests_per_address", self.requests_per_address),
            ("burst_seconds", self.burst_seconds),
            ("header_seconds", self.header_seconds),
            ("guest_seconds", self.guest_seconds),
            ("stall_seconds", self.stall_seconds),
            ("clock_seconds", self.clock_seconds),
            ("poll_seconds", self.poll_seconds),
        ];
        // A semaphore counts held bytes.
        let is_count = |n: u64| (1..=1 << 29).contains(&n);
        let is_number = |x: f64| x > 0.0 && x <= 1e6;
        if let Some((field, n)) = counts.into_iter().find(|(_, n)| !is_count(*n)) {
            return Err((field, n.to_string(), "a whole number from 1 to 2^29"));
        }
        if let Some((field, x)) = numbers.into_iter().find(|(_, x)| !is_number(*x)) {
            return Err((field, x.to_string(), "more than 0 and at most 1,000,000"));
        }
        let most = self.largest_body();
        let held = [
            ("held_bytes", self.held_bytes),
            ("held_bytes_per_address", self.held_bytes_per_address),
        ];
        match held.into_iter().find(|(_, bytes)| *bytes < most) {
            Some((field, bytes)) => {
                Err((field, bytes.to_string(), "at least piece_bytes and message_bytes"))
            }
            None => Ok(()),
        }
    }

    /// Bytes of the largest body there can be.
    pub(crate) fn largest_body(&self) -> usize {
        self.piece_bytes.max(self.message_bytes)
    }

    /// How long a body of so many bytes may take.
    pub(crate) fn body_time(&self, bytes: usize) -> Duration {
        let seconds = bytes as f64 / self.min_bytes_per_second as f64;
        Duration::from_secs_f64(self.stall_seconds + seconds)
    }

    /// How long a response may stand still.
    pub(crate) fn stall(&self) -> Duration {
        Duration::from_secs_f64(self.stall_seconds)
    }
}

/// Senders that are counted one by one.
const MAX_SENDERS: usize = 1 << 17;

/// A token bucket a sender, of requests or of bytes: `rate` a second for long, `burst` at once.
///
/// Memory is bounded: senders that have not come for a while are forgotten, and when all
/// places are taken by senders that come all the time, new ones share a bucket.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    rate: f64,
    burst: f64,
    places: usize,
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    own: HashMap<K, Bucket>,
    shared: Bucket,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Millis,
}

impl Bucket {
    fn filled(&self, now: Millis, rate: f64, burst: f64) -> f64 {
        let seconds = now.0.saturating_sub(self.at.0) as f64 / 1e3;
        (self.tokens + seconds * rate).min(burst)
    }
}

impl<K: Eq + Hash> Rates<K> {
    /// For `rate` tokens a second. However short the burst, `most` can be taken at once.
    pub fn new(rate: f64, burst_seconds: f64, most: usize) -> Self {
        let burst = (rate * burst_seconds).max(most as f64);
        let shared = Bucket { tokens: burst, at: Millis(0) };
        let buckets = Mutex::new(Buckets { own: HashMap::new(), shared });
        Rates { rate, burst, places: MAX_SENDERS, buckets }
    }

    /// Takes tokens of a sender: all of them or none.
    ///
    /// # Errors
    /// How long to wait for what is missing.
    pub fn take(&self, sender: K, tokens: usize, now: Millis) -> Result<(), Duration> {
        let (rate, burst) = (self.rate, self.burst);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { own, shared } = &mut *buckets;
        if own.len() >= self.places && !own.contains_key(&sender) {
            own.retain(|_, bucket| bucket.filled(now, rate, burst) < burst);
        }
        let full = Bucket { tokens: burst, at: now };
        let bucket = match own.len() >= self.places && !own.contains_key(&sender) {
            true => shared,
            false => own.entry(sender).or_insert(full),
        };
        *bucket = Bucket { tokens: bucket.filled(now, rate, burst), at: now };
        let missing = tokens as f64 - bucket.tokens;
        if missing > 0.0 {
            return Err(Duration::from_secs_f64(missing / rate));
        }
        bucket.tokens -= tokens as f64;
        Ok(())
    }

    /// How long a sender has to wait until so many tokens are there for it.
    pub fn wait(&self, sender: &K, tokens: usize, now: Millis) -> Duration {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match buckets.own.get(sender) {
            Some(own) => own,
            None if buckets.own.len() >= self.places => &buckets.shared,
            None => return Duration::ZERO,
        };
        let missing = tokens as f64 - bucket.filled(now, self.rate, self.burst);
        Duration::from_secs_f64(missing.max(0.0) / self.rate)
    }
}

/// What counts as one address: of IPv6 the 64 bits that a network gives out.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_has_a_burst_and_then_its_rate() {
        let rates = Rates::new(2.0, 2.0, 1);
        for _ in 0..4 {
            assert_eq!(rates.wait(&"a", 1, Millis(1_000)), Duration::ZERO);
            rates.take("a", 1, Millis(1_000)).unwrap();
        }
        let half = Duration::from_millis(500);
        assert_eq!(rates.wait(&"a", 1, Millis(1_000)), half);
        assert_eq!(rates.take("a", 1, Millis(1_000)), Err(half));
        assert_eq!(rates.wait(&"b", 1, Millis(1_000)), Duration::ZERO);
        rates.take("b", 1, Millis(1_000)).unwrap();
        rates.take("a", 1, Millis(1_500)).unwrap();
        assert!(rates.take("a", 1, Millis(1_600)).is_err());
        // A clock that jumps back gives nothing and takes nothing.
        assert!(rates.take("a", 1, Millis(10)).is_err());
    }

    #[test]
    fn bytes_are_taken_whole_or_not_at_all() {
        // A burst shorter than a piece still has room for one.
        let rates = Rates::new(100.0, 0.1, 400);
        rates.take("a", 300, Millis(1_000)).unwrap();
        assert_eq!(rates.take("a", 400, Millis(1_000)), Err(Duration::from_secs(3)));
        rates.take("a", 100, Millis(1_000)).unwrap();
        assert_eq!(rates.wait(&"a", 50, Millis(1_000)), Duration::from_millis(500));
        rates.take("a", 400, Millis(5_000)).unwrap();
    }

    #[test]
    fn senders_beyond_the_places_share_a_bucket() {
        let rates = Rates { places: 2, ..Rates::new(1.0, 2.0, 1) };
        for sender in 0..2 {
            rates.take(sender, 1, Millis(1_000)).unwrap();
        }
        rates.take(2, 1, Millis(1_000)).unwrap();
        rates.take(3, 1, Millis(1_000)).unwrap();
        assert!(rates.take(4, 1, Millis(1_000)).is_err(), "all that is shared is taken");
        assert_eq!(rates.wait(&4, 1, Millis(1_000)), Duration::from_secs(1));
        rates.take(1, 1, Millis(1_000)).unwrap();
        // The places are free again once their senders' buckets are full.
        rates.take(4, 1, Millis(9_000)).unwrap();
        assert_eq!(rates.buckets.lock().unwrap().own.len(), 1);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn impossible_limits_are_named() {
        Limits::default().check().unwrap();
        let no_rate = Limits { requests_per_client: f64::NAN, ..Limits::default() };
        assert_eq!(no_rate.check().unwrap_err().0, "requests_per_client");
        let no_body = Limits { message_bytes: 0, ..Limits::default() };
        assert_eq!(no_body.check().unwrap_err().0, "message_bytes");
        let no_share = Limits { held_bytes_per_address: 1000, ..Limits::default() };
        assert_eq!(no_share.check().unwrap_err().0, "held_bytes_per_address");
    }
}
