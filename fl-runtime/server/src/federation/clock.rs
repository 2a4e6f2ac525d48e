//! A clock that only goes forward, from a system's clock that may be set.

use tern_protocol::Millis;

/// A clock that only goes forward: it adds up what passes on the system's clock. Where that is set
/// back, no time passes; where it is set forward, that much does.
#[derive(Debug)]
pub struct Clock {
    now: Millis,
    /// What the system's clock said last.
    last: Option<Millis>,
}

impl Clock {
    /// Goes on from a moment.
    pub fn new(now: Millis) -> Self {
        Clock { now, last: None }
    }

    /// The time when it was read last.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// The time, when the system's clock says `system`.
    pub fn read(&mut self, system: Millis) -> Millis {
        match self.last.replace(system) {
            Some(last) => self.now = self.now.after(system.since(last)),
            // While the process was away its clock was the system's.
            None => self.now = self.now.max(system),
        }
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_after_the_clock_is_set_back() {
        let mut clock = Clock::new(Millis(100));
        let times: Vec<u64> = [120, 130, 50, 60, 1_000].map(|t| clock.read(Millis(t)).0).to_vec();
        assert_eq!(times, [120, 130, 130, 140, 1_080]);
        let mut clock = Clock::new(Millis(5_000));
        assert_eq!([10, 20].map(|t| clock.read(Millis(t)).0), [5_000, 5_010]);
    }
}
