//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with full jitter: the wait is drawn from 0 to a limit that doubles from
/// failure to failure, so that clients that failed together don't come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::new(Duration::from_millis(500), Duration::from_secs(60))
    }
}

impl Backoff {
    /// Limits: after the first failure, and after many.
    pub fn new(first: Duration, most: Duration) -> Self {
        Backoff { first, most, failures: 0 }
    }

    /// Something worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Something failed: how long to wait. `asked` is what the server asked for, at least.
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let limit = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures += 1;
        // Without entropy the wait is the limit, which is safe.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let drawn = limit.mul_f64(f64::from(random) / f64::from(u32::MAX));
        drawn + asked.unwrap_or_default().min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_start_again() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(3));
        let mut backoff = Backoff::new(first, most);
        for failure in 0..100 {
            let limit = most.min(first * (1 << failure.min(10)));
            assert!(backoff.wait(None) <= limit, "{failure}");
        }
        // 20 draws that are all below half the limit would be one in a million.
        assert!((0..20).any(|_| backoff.wait(None) > most / 2));
        assert!(backoff.wait(Some(Duration::from_secs(2))) >= Duration::from_secs(2));
        backoff.reset();
        assert!(backoff.wait(None) <= first);
    }
}
