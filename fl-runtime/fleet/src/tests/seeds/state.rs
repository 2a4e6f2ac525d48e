//! What a database and an object store have, and the rules of their transactions: those of the
//! statements in `DATA_MODEL.md`, in memory. Each call is one transaction, or one request.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::coordinator::Upload;
use tern_protocol::{ClientId, Digest, Error, Result, Turn, wire};
use tern_server::federation::Counted;
use tern_server::journal::RoundRow;

use crate::gateway::follower::News;
use crate::members::{Outcome, Taken};
use crate::objects::Orphan;
use crate::parts::{Claim, Finished, Folded, list_of};
use crate::requests::{Answer, Asked};
use crate::{lease, sweep};

/// Milliseconds of a lease, and of what is kept.
pub const LEASE: u64 = 2_000;
const KEEP: u64 = 4 * LEASE;
/// Updates of a part.
const SIZE: usize = 2;

/// The run's row.
#[derive(Clone)]
pub struct Run {
    pub run: Vec<u8>,
    pub plan: Vec<u8>,
    pub initial: Digest,
    pub snapshot: Vec<u8>,
    pub base: i64,
    pub sequence: i64,
}

struct Part {
    list: Digest,
    updates: Vec<(ClientId, Counted)>,
    token: Option<[u8; 16]>,
    until: Option<u64>,
    folded: Option<Folded>,
}

struct Request {
    client: ClientId,
    asked: Asked,
    answer: Option<Answer>,
}

#[derive(Default)]
pub struct State {
    /// The database's time, in milliseconds.
    pub now: u64,
    epoch: i64,
    until: u64,
    pub run: Option<Run>,
    pub events: Vec<(i64, wire::Journaled)>,
    pub clients: Vec<ClientId>,
    pub rounds: Vec<RoundRow>,
    /// Attempts, and whether they take updates.
    attempts: BTreeMap<Turn, bool>,
    pub members: BTreeMap<(Turn, ClientId), Taken>,
    parts: BTreeMap<(Turn, i64), Part>,
    requests: BTreeMap<i64, Request>,
    next: i64,
    presence: BTreeMap<ClientId, (u32, u64)>,
    /// Objects by their places, and when they were written.
    objects: BTreeMap<String, (Vec<u8>, u64)>,
}

fn failed(reason: &str) -> Error {
    Error::journal("simulated".as_ref(), reason)
}

impl State {
    pub fn take_lease(&mut self) -> Option<i64> {
        (self.until < self.now).then(|| {
            self.epoch += 1;
            self.until = self.now + LEASE;
            self.epoch
        })
    }

    pub fn renew_lease(&mut self, epoch: i64) -> bool {
        let is_mine = self.epoch == epoch;
        if is_mine {
            self.until = self.now + LEASE;
        }
        is_mine
    }

    pub fn fenced(&self, epoch: i64) -> Result<()> {
        lease::check(self.epoch, epoch)
    }

    /// The next write after `at`, under an epoch.
    pub fn write(&mut self, epoch: i64, at: i64) -> Result<(&mut Self, i64)> {
        self.fenced(epoch)?;
        let run = self.run.as_mut().ok_or_else(|| failed("no run"))?;
        if run.sequence != at {
            return Err(failed("the write is not the next one"));
        }
        run.sequence = at + 1;
        Ok((self, at + 1))
    }

    pub fn start(&mut self, epoch: i64, run: Run) -> Result<()> {
        self.fenced(epoch)?;
        match self.run {
            Some(_) => Err(failed("there is a run")),
            None => {
                self.run = Some(run);
                Ok(())
            }
        }
    }

    pub fn append(
        &mut self,
        write: (i64, i64),
        event: wire::Journaled,
        open: Option<Turn>,
    ) -> Result<()> {
        let (state, next) = self.write(write.0, write.1)?;
        state.events.push((next, event));
        match open {
            Some(turn) => drop(state.attempts.entry(turn).or_insert(true)),
            None => state.attempts.values_mut().for_each(|takes| *takes = false),
        }
        Ok(())
    }

    /// Ends the open attempt, with a round or without.
    pub fn rebase(
        &mut self,
        write: (i64, i64),
        snapshot: Vec<u8>,
        round: Option<RoundRow>,
    ) -> Result<()> {
        let (state, next) = self.write(write.0, write.1)?;
        state.events.clear();
        state.parts.clear();
        state.attempts.values_mut().for_each(|takes| *takes = false);
        if let Some(run) = &mut state.run {
            (run.snapshot, run.base) = (snapshot, next);
        }
        if let Some(round) = round {
            assert!(state.rounds.iter().all(|other| other.round != round.round), "a round twice");
            state.rounds.push(round);
        }
        Ok(())
    }

    pub fn enroll(&mut self, epoch: i64, client: ClientId) -> Result<()> {
        self.fenced(epoch)?;
        if !self.clients.contains(&client) {
            self.clients.push(client);
        }
        Ok(())
    }

    pub fn news(&self, base: i64, sequence: i64) -> News {
        use prost::Message as _;
        let run = self.run.as_ref().filter(|run| run.base > base);
        let snapshot = run.map(|run| (run.base, run.snapshot.clone()));
        let after = snapshot.as_ref().map_or(sequence, |(base, _)| *base);
        let events = self.events.iter().filter(|(sequence, _)| *sequence > after);
        let events = events.map(|(sequence, event)| (*sequence, event.encode_to_vec())).collect();
        News { snapshot, events }
    }

    pub fn accept(&mut self, turn: Turn, taken: &Taken) -> Outcome {
        let takes = self.attempts.get(&turn).copied().unwrap_or(false);
        match self.members.get(&(turn, taken.client)) {
            Some(there) if there.finish == taken.finish => Outcome::Repeated,
            Some(_) => Outcome::Conflict,
            None if takes => {
                self.members.insert((turn, taken.client), taken.clone());
                Outcome::Counted
            }
            None => Outcome::Closed,
        }
    }

    pub fn attempt(&self, turn: Turn) -> Option<(bool, usize)> {
        let takes = *self.attempts.get(&turn)?;
        Some((!takes, self.members.keys().filter(|(of, _)| *of == turn).count()))
    }

    pub fn close(&mut self, epoch: i64, turn: Turn) -> Result<()> {
        self.fenced(epoch)?;
        if let Some(takes) = self.attempts.get_mut(&turn) {
            *takes = false;
        }
        Ok(())
    }

    pub fn members(&self, turn: Turn) -> Vec<(ClientId, Upload)> {
        let members = self.members.iter().filter(|((of, _), _)| *of == turn);
        let member = |((_, client), taken): (&(Turn, ClientId), &Taken)| {
            (*client, Upload::announced(taken.digest, taken.bytes, taken.finish.clone()))
        };
        members.map(member).collect()
    }

    pub fn deal(&mut self, epoch: i64, turn: Turn, updates: &[(ClientId, Counted)]) -> Result<()> {
        self.fenced(epoch)?;
        let list = list_of(updates);
        self.parts.retain(|(of, _), part| *of == turn && part.list == list);
        for (number, updates) in (0..).zip(updates.chunks(SIZE)) {
            self.parts.entry((turn, number)).or_insert_with(|| Part {
                list,
                updates: updates.to_vec(),
                token: None,
                until: None,
                folded: None,
            });
        }
        Ok(())
    }

    pub fn claim(&mut self, token: [u8; 16]) -> Option<Claim> {
        let now = self.now;
        let free =
            |part: &Part| part.folded.is_none() && part.until.is_none_or(|until| until < now);
        let ((turn, number), part) = self.parts.iter_mut().find(|(_, part)| free(part))?;
        (part.token, part.until) = (Some(token), Some(now + LEASE));
        Some(Claim { turn: *turn, number: *number, updates: part.updates.clone(), token })
    }

    fn claimed(&mut self, claim: &Claim) -> Option<&mut Part> {
        let part = self.parts.get_mut(&(claim.turn, claim.number))?;
        (part.token == Some(claim.token) && part.folded.is_none()).then_some(part)
    }

    pub fn finish_part(&mut self, claim: &Claim, folded: &Folded) -> bool {
        let part = self.claimed(claim);
        part.map(|part| part.folded = Some(folded.clone())).is_some()
    }

    pub fn give_back(&mut self, claim: &Claim) {
        if let Some(part) = self.claimed(claim) {
            (part.token, part.until) = (None, None);
        }
    }

    pub fn reopen(&mut self, epoch: i64, turn: Turn, number: i64) -> Result<()> {
        self.fenced(epoch)?;
        if let Some(part) = self.parts.get_mut(&(turn, number)) {
            (part.token, part.until, part.folded) = (None, None, None);
        }
        Ok(())
    }

    pub fn finished(&self, turn: Turn) -> Option<Vec<Finished>> {
        let parts = self.parts.iter().filter(|((of, _), _)| *of == turn);
        let finished = |((_, number), part): (&(Turn, i64), &Part)| {
            let claim = Claim { turn, number: *number, updates: Vec::new(), token: part.token? };
            Some(Finished { number: *number, name: claim.name(), folded: part.folded.clone()? })
        };
        parts.map(finished).collect()
    }

    pub fn leave(&mut self, client: ClientId, asked: Asked) -> i64 {
        self.next += 1;
        self.requests.insert(self.next, Request { client, asked, answer: None });
        self.next
    }

    pub fn asked(&self) -> Vec<(i64, ClientId, Asked)> {
        let open = self.requests.iter().filter(|(_, request)| request.answer.is_none());
        open.map(|(number, request)| (*number, request.client, request.asked.clone())).collect()
    }

    pub fn answer(&mut self, epoch: i64, answers: &[(i64, Answer)]) -> Result<()> {
        self.fenced(epoch)?;
        for (number, answer) in answers {
            if let Some(request) = self.requests.get_mut(number) {
                request.answer = Some(answer.clone());
            }
        }
        Ok(())
    }

    pub fn answered(&mut self, number: i64) -> Option<Answer> {
        self.requests.get(&number)?.answer.as_ref()?;
        self.requests.remove(&number)?.answer
    }

    pub fn hear(&mut self, client: ClientId, samples: u32) {
        self.presence.insert(client, (samples, self.now));
    }

    pub fn heard_since(&self, moment: f64) -> (Vec<(ClientId, u32)>, f64) {
        let heard = self.presence.iter().filter(|(_, (_, seen))| *seen as f64 / 1e3 > moment);
        let clients = heard.map(|(client, (samples, _))| (*client, *samples)).collect();
        (clients, self.now as f64 / 1e3 - 5.0)
    }

    pub fn put(&mut self, place: String, bytes: &[u8]) {
        self.objects.insert(place, (bytes.to_vec(), self.now));
    }

    pub fn get(&self, place: &str) -> Option<Vec<u8>> {
        self.objects.get(place).map(|(bytes, _)| bytes.clone())
    }

    /// Objects that nobody needs, as far as who keeps these models knows.
    pub fn orphans(&self, kept: &[Digest], open: Turn) -> Vec<String> {
        let row = |round: &RoundRow| {
            let turn = Turn::new(round.round, round.attempt);
            round.uploads.iter().map(|upload| (turn, upload.digest.to_string())).collect::<Vec<_>>()
        };
        let counted: BTreeSet<(Turn, String)> = self.rounds.iter().flat_map(row).collect();
        let is_orphan = |place: &str, written: u64| {
            let orphan = Orphan::of(place).unwrap();
            self.now - written > KEEP && !sweep::stays(&orphan, kept, open, &counted)
        };
        let orphans =
            self.objects.iter().filter(|(place, (_, written))| is_orphan(place, *written));
        orphans.map(|(place, _)| place.clone()).collect()
    }

    /// Removes objects, under an epoch; how many.
    pub fn remove(&mut self, epoch: i64, places: &[String]) -> Result<u64> {
        self.fenced(epoch)?;
        places.iter().for_each(|place| drop(self.objects.remove(place)));
        Ok(places.len() as u64)
    }
}
