//! Waiting for the clients of a round.

use tern_protocol::coordinator::Event;
use tern_protocol::{Millis, Refusal, Salt, Turn};

use super::{Admission, Federation};

impl Federation {
    /// Starts the round if enough clients are there.
    pub(super) fn gather(&mut self, now: Millis) -> Result<(), Refusal> {
        if !self.coordinator.wants_cohort() {
            return Ok(());
        }
        let since = *self.gathering.get_or_insert(now);
        if self.next_attempt().is_some_and(|next| now < next) {
            return Ok(());
        }
        let (cohort, excluded) = (&self.plan.cohort, self.coordinator.excluded());
        let (minimum, asked) = (cohort.minimum as usize, cohort.asked() as usize);
        let waited = now.since(since) >= cohort.gather_ms;
        let enough = match waited {
            true => minimum,
            // Who asks first must not be drawn for that: all are waited for that may come.
            false if self.coordinator.turn() == Turn::new(1, 1) => match &self.options.admission {
                // Clients still register.
                Admission::Open => self.presence.expected(excluded.keys()).max(asked),
                Admission::Tokens(_) => return Ok(()),
                Admission::List(list) => list.len().max(minimum),
            },
            false => self.presence.expected(excluded.keys()).max(minimum),
        };
        // Most polls of many clients need no look at all of them.
        if self.presence.heard() < enough {
            return Ok(());
        }
        let mut online = self.presence.online(now);
        online.retain(|candidate| !excluded.contains_key(&candidate.client));
        // Who evaluates only is asked later on, and nobody waits for them here.
        let training = || online.iter().filter(|client| client.samples > 0);
        if training().count() < enough {
            return Ok(());
        }
        if !self.models_are_whole(now) {
            return Ok(());
        }
        if waited {
            self.presence.give_up_on_others(training().map(|client| client.client));
        }
        self.tell_of_few();
        let salt = match self.options.simulated {
            Some(seed) => Salt::simulated(seed, self.coordinator.turn()),
            // Drawn now, so that nobody could know it who is online.
            None => Salt::draw().map_err(|error| Refusal::Storage(error.to_string()))?,
        };
        self.apply(now, Event::Start { online, salt })?;
        self.total = (!self.options.fleet).then(|| self.context.folding.empty());
        Ok(())
    }

    /// Says, once for each number of them, that rounds ask for more clients than there are.
    fn tell_of_few(&mut self) {
        let (enrolled, cohort) = (self.presence.enrolled().len(), &self.plan.cohort);
        if enrolled >= cohort.asked() as usize || self.told == Some(enrolled) {
            return;
        }
        self.told = Some(enrolled);
        let (size, asked) = (cohort.size, cohort.asked());
        tracing::warn!(enrolled, size, asked, "fewer clients are enrolled than a round asks for");
    }

    /// When the attempt may start that clients are being gathered for: one that follows on
    /// others that failed waits.
    pub fn next_attempt(&self) -> Option<Millis> {
        let since = self.gathering.filter(|_| self.coordinator.wants_cohort())?;
        Some(since.after(pause(self.coordinator.turn().attempt)))
    }
}

/// Milliseconds before an attempt: the second follows at once, the third after two seconds, each
/// later one after twice as long, at most a minute.
pub(super) fn pause(attempt: u32) -> u64 {
    match attempt {
        0..=2 => 0,
        _ => 1_000 * (1u64 << (attempt - 2).min(6)).min(60),
    }
}
