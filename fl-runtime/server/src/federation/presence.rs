//! Who is registered, and who was heard of lately.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tern_protocol::coordinator::Candidate;
use tern_protocol::{ClientId, Millis, Refusal};

use super::Federation;

#[derive(Debug)]
pub(super) struct Presence {
    enrolled: BTreeSet<ClientId>,
    /// When, and with how many samples.
    seen: BTreeMap<ClientId, (Millis, u32)>,
    /// Clients that weren't there after all the time to gather them, and not since.
    absent: BTreeSet<ClientId>,
    /// Milliseconds after which a silent client is gone.
    window: u64,
    processes: Processes,
}

/// Which processes came with each client's key.
#[derive(Debug, Default)]
pub struct Processes {
    /// Their numbers, the one that came last at the end.
    of: BTreeMap<ClientId, VecDeque<u64>>,
}

/// Processes of a client that are remembered: more copies than anybody runs by mistake.
const PROCESSES: usize = 8;

impl Presence {
    pub fn new(enrolled: Vec<ClientId>, window: u64) -> Self {
        let (enrolled, seen) = (enrolled.into_iter().collect(), BTreeMap::new());
        let (absent, processes) = (BTreeSet::new(), Processes::default());
        Presence { enrolled, seen, absent, window, processes }
    }

    pub fn knows(&self, client: &ClientId) -> bool {
        self.enrolled.contains(client)
    }

    pub fn enroll(&mut self, client: ClientId) {
        self.enrolled.insert(client);
    }

    pub fn enrolled(&self) -> impl ExactSizeIterator<Item = &ClientId> {
        self.enrolled.iter()
    }

    pub fn seen(&mut self, now: Millis, client: ClientId, samples: u32) {
        self.seen.insert(client, (now, samples));
        if samples > 0 {
            self.absent.remove(&client);
        }
    }

    /// Nobody waits any longer for who isn't among these.
    pub fn give_up_on_others(&mut self, online: impl Iterator<Item = ClientId>) {
        let online: BTreeSet<_> = online.collect();
        self.absent = self.enrolled.difference(&online).copied().collect();
    }

    /// Registered clients that may still come, but for those who are out.
    pub fn expected<'a>(&self, out: impl Iterator<Item = &'a ClientId>) -> usize {
        let counted = |client: &&ClientId| self.knows(client) && !self.absent.contains(*client);
        self.enrolled.len() - self.absent.len() - out.filter(counted).count()
    }

    /// Clients heard of since the start, whether or not they are still there.
    pub fn heard(&self) -> usize {
        self.seen.len()
    }

    /// Who is there, in order of their keys; without samples to train on who evaluates only.
    pub fn online(&self, now: Millis) -> Vec<Candidate> {
        let lately = self.seen.iter().filter(|(_, (seen, _))| now.since(*seen) <= self.window);
        lately
            .map(|(client, (_, samples))| Candidate { client: *client, samples: *samples })
            .collect()
    }
}

impl Processes {
    /// Whether it is for this process of a client to go on. One that is started again has another
    /// number, and the one before it never comes back, unless both run.
    pub fn goes_on(&mut self, client: ClientId, process: u64) -> bool {
        let known = self.of.entry(client).or_default();
        if let Some(at) = known.iter().position(|earlier| *earlier == process) {
            return at + 1 == known.len();
        }
        if known.len() == PROCESSES {
            known.pop_front();
        }
        known.push_back(process);
        true
    }
}

impl Federation {
    /// Whether this process of a client may go on: where two come with one key, the one that came
    /// first is told. 0 is no process' number.
    ///
    /// # Errors
    /// [`Refusal::Copied`].
    pub fn check_process(&mut self, client: &ClientId, process: u64) -> Result<(), Refusal> {
        self.known(client)?;
        if process == 0 || self.presence.processes.goes_on(*client, process) {
            return Ok(());
        }
        tracing::warn!(%client, "runs twice, from a copy of its folder: the earlier one is told");
        self.refuse(Refusal::Copied(*client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_who_is_out() {
        let [ann, bob, eve] = [1, 2, 3].map(|number| ClientId([number; 32]));
        let mut presence = Presence::new(vec![ann, bob, eve], 1_000);
        assert_eq!(presence.expected([].iter()), 3);
        // Though it still asks.
        presence.seen(Millis(1), eve, 5);
        assert_eq!(presence.expected([eve].iter()), 2);
        // Who is away or was never registered counts once.
        presence.give_up_on_others([ann].into_iter());
        assert_eq!(presence.expected([eve, ClientId([9; 32])].iter()), 1);
    }

    #[test]
    fn a_client_that_is_started_again_goes_on_and_one_of_two_does_not() {
        let (ann, bob) = (ClientId([1; 32]), ClientId([2; 32]));
        let mut processes = Processes::default();
        // Started again and again.
        for process in 1..=20 {
            assert!(processes.goes_on(ann, process) && processes.goes_on(ann, process));
        }
        assert!(processes.goes_on(bob, 7));
        // The one before the last is still there, and so are those before.
        assert!(!processes.goes_on(ann, 19) && !processes.goes_on(ann, 14));
        assert!(processes.goes_on(ann, 20));
        // Three in turn: the last one that came goes on.
        for process in [21, 22, 23] {
            processes.goes_on(ann, process);
        }
        let told = [21, 22, 23].map(|process| !processes.goes_on(ann, process));
        assert_eq!(told, [true, true, false]);
        assert_eq!(processes.of[&ann].len(), PROCESSES);
    }

    #[test]
    fn who_comes_with_samples_is_waited_for_again() {
        let [ann, ben] = [1, 2].map(|number| ClientId([number; 32]));
        let mut presence = Presence::new(vec![ann, ben], 1_000);
        presence.give_up_on_others([ann].into_iter());
        assert_eq!(presence.expected([].iter()), 1);
        // One that evaluates only isn't waited for.
        presence.seen(Millis(5), ben, 0);
        assert_eq!(presence.expected([].iter()), 1);
        presence.seen(Millis(6), ben, 9);
        assert_eq!(presence.expected([].iter()), 2);
        assert_eq!(presence.expected([ben].iter()), 1);
    }
}
