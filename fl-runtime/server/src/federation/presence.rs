//! Who is registered, and who was heard of lately.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::coordinator::Candidate;
use tern_protocol::{ClientId, Millis};

#[derive(Debug)]
pub(super) struct Presence {
    enrolled: BTreeSet<ClientId>,
    /// When, and with how many samples.
    seen: BTreeMap<ClientId, (Millis, u32)>,
    /// Clients that weren't there after all the time to gather them, and not since.
    absent: BTreeSet<ClientId>,
    /// Milliseconds after which a silent client is gone.
    window: u64,
}

impl Presence {
    pub fn new(enrolled: Vec<ClientId>, window: u64) -> Self {
        let enrolled = enrolled.into_iter().collect();
        Presence { enrolled, seen: BTreeMap::new(), absent: BTreeSet::new(), window }
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

    /// Registered clients that may still come.
    pub fn expected(&self) -> usize {
        self.enrolled.len() - self.absent.len()
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
