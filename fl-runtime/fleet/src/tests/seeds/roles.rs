//! What processes and clients do at a step.

use std::sync::Arc;

use tern_protocol::coordinator::Upload;
use tern_protocol::participant::declined;
use tern_protocol::update::Codec;
use tern_protocol::wire::instruction::What;
use tern_protocol::{ClientId, Digest, Error, Result, RunId, Turn, wire};
use tern_server::federation::{Federation, Folding, Options};

use super::sim::{Sim, SimLedger};
use super::state::LEASE;
use super::world::{Process, World};
use crate::gateway::follower::Follower;
use crate::leader::Leader;
use crate::lease;
use crate::members::{Outcome, Taken};
use crate::parts::Folded;
use crate::requests::{Answer, Asked};
use crate::shared::Shared as _;

/// Follows the run, and takes updates as a gateway does once their bodies are there.
pub struct Gateway {
    sim: Sim,
    follower: Option<Follower>,
}

impl Gateway {
    pub fn new(sim: Sim) -> Self {
        Gateway { sim, follower: None }
    }

    pub fn step(&mut self) {
        // It follows the next time, too.
        let _ = self.follow();
    }

    fn follow(&mut self) -> Result<()> {
        let (base, sequence) = self.follower.as_ref().map_or((-1, -1), Follower::at);
        let news = self.sim.call(|state| state.news(base, sequence))?;
        match &mut self.follower {
            Some(follower) => drop(follower.follow(news)?),
            None if news.snapshot.is_none() => {}
            None => {
                let plan = &self.sim.world.plan;
                self.follower = Some(Follower::new(RunId([7; 16]), plan, news)?);
            }
        }
        Ok(())
    }

    fn ask(&self, client: ClientId, asked: Asked) -> Result<i64> {
        self.sim.call(|state| state.leave(client, asked))
    }

    fn poll(&self, client: ClientId, samples: u32) -> Result<Option<Turn>> {
        self.sim.call(|state| state.hear(client, samples))?;
        let Some(follower) = &self.follower else { return Ok(None) };
        let told = follower.coordinator.instruction(&client);
        let turn = Turn::new(told.round, told.attempt);
        Ok(matches!(told.what, Some(What::Train(_))).then_some(turn))
    }

    /// `None` where the coordinator, as this gateway has it, takes no update of the client.
    fn take(&mut self, taken: Taken, turn: Turn, body: &[u8]) -> Result<Option<Outcome>> {
        let client = taken.client;
        let of = Upload::announced(taken.digest, taken.bytes, taken.finish.clone());
        let refused = |follower: &Option<Follower>| match follower {
            Some(follower) => follower.coordinator.check_upload(&client, turn, Some(&of)).is_err(),
            None => true,
        };
        if refused(&self.follower) {
            self.follow()?;
        }
        if refused(&self.follower) {
            let there = self.sim.member(turn, &client)?;
            return Ok(there.map(|there| match there == taken.finish {
                true => Outcome::Repeated,
                false => Outcome::Conflict,
            }));
        }
        self.sim.put_update(turn, body)?;
        self.sim.call(|state| state.accept(turn, &taken)).map(Some)
    }
}

/// Leads, or waits to.
pub struct Leads {
    sim: Sim,
    /// Its epoch, and when the lease was renewed.
    leading: Option<(Leader<Sim>, i64, u64)>,
}

impl Leads {
    pub fn new(sim: Sim) -> Self {
        Leads { sim, leading: None }
    }

    pub fn step(&mut self) {
        let now = self.sim.now().0;
        let Some((leader, epoch, renewed)) = &mut self.leading else { return self.begin(now) };
        if now - *renewed > LEASE / 4 {
            match self.sim.call(|state| state.renew_lease(*epoch)) {
                Ok(true) => *renewed = now,
                // Until its time is over it may be the leader still.
                Err(_) if now - *renewed < LEASE => {}
                Ok(false) | Err(_) => return self.leading = None,
            }
        }
        match leader.step() {
            Err(error) if lease::is_over(&error) => self.leading = None,
            Err(error @ Error::Value { .. }) => panic!("{error}"),
            Err(error) => *self.sim.world.trouble.lock().unwrap() = error.to_string(),
            Ok(()) => {}
        }
    }

    fn begin(&mut self, now: u64) {
        let Ok(Some(epoch)) = self.sim.call(|state| state.take_lease()) else { return };
        self.sim.world.note("leads");
        let world = &self.sim.world;
        let ledger = Box::new(SimLedger::new(&self.sim, epoch));
        let options = Options::default().fleet(true).keep_uploads(true);
        let options = options.run(RunId([7; 16])).simulated(1);
        let (bodies, guard) = (Arc::new(self.sim.clone()), Box::new(()));
        let opened = Federation::with(ledger, bodies, guard, &world.plan, &world.initial, options);
        match opened {
            Ok(federation) => {
                let leader = Leader::new(self.sim.clone(), federation, epoch);
                self.leading = Some((leader, epoch, now));
            }
            Err(error @ Error::Value { .. }) if !lease::is_over(&error) => panic!("{error}"),
            // The lease ends by itself.
            Err(error) => *world.trouble.lock().unwrap() = error.to_string(),
        }
    }
}

/// Adds up parts.
pub struct Aggregator {
    sim: Sim,
    folding: Folding,
}

impl Aggregator {
    pub fn new(sim: Sim) -> Self {
        Aggregator { folding: Folding::new(&sim.world.plan).unwrap(), sim }
    }

    pub fn step(&mut self) {
        let token = std::array::from_fn(|_| self.sim.world.below(256) as u8);
        let Ok(Some(claim)) = self.sim.call(|state| state.claim(token)) else { return };
        let folded = self.folding.fold(&self.sim, claim.turn, &claim.updates);
        let folded = folded.and_then(|folded| match folded {
            Ok(sum) => Ok(Folded::Sum(self.sim.put_sum(&claim.name(), &sum.to_bytes())?)),
            Err(lost) => {
                self.sim.world.note("updates lost");
                let mut said = self.sim.world.said.lock().unwrap();
                said.lied.extend(lost.iter().map(|client| (claim.turn, *client)));
                Ok(Folded::Lost(lost))
            }
        });
        match folded {
            Ok(folded) => {
                if let Ok(false) = self.sim.call(|state| state.finish_part(&claim, &folded)) {
                    self.sim.world.note("parts of zombies");
                }
            }
            // If that is lost the claim ends by itself.
            Err(_) => drop(self.sim.call(|state| state.give_back(&claim))),
        }
    }
}

/// A client: it asks one gateway or the other, and again where there is no answer.
pub struct Client {
    world: Arc<World>,
    number: usize,
    registered: bool,
    /// The gateway at which it waits for an answer, the request's number, and since when.
    waits: Option<(usize, i64, u64)>,
}

impl Client {
    pub fn new(world: Arc<World>, number: usize) -> Self {
        Client { world, number, registered: false, waits: None }
    }

    fn id(&self) -> ClientId {
        ClientId::numbered(self.number)
    }

    /// Has a gateway do something; `None` if there is none, or it doesn't answer.
    fn at<T>(&self, number: usize, act: impl FnOnce(&mut Gateway) -> Result<T>) -> Option<T> {
        let act = |process: &mut Process| match process {
            Process::Gateway(gateway) => act(gateway).ok(),
            _ => None,
        };
        self.world.with(number, act).flatten()
    }

    fn ask(&mut self, gateway: usize, asked: Asked) {
        let (client, now) = (self.id(), self.world.state().now);
        let number = self.at(gateway, |gateway| gateway.ask(client, asked));
        self.waits = number.map(|number| (gateway, number, now));
    }

    fn answered(&mut self, Answer { outcome, .. }: &Answer) {
        self.waits = None;
        self.registered |= outcome == "taken" || outcome == "repeated";
    }

    pub fn step(&mut self) {
        let gateway = self.world.below(2) as usize;
        if let Some((at, number, since)) = self.waits {
            let answer = self.at(at, |gateway| gateway.sim.call(|state| state.answered(number)));
            match answer.flatten() {
                Some(answer) => self.answered(&answer),
                None if self.world.state().now - since > 3_000 => self.waits = None,
                None => {}
            }
            return;
        }
        if !self.registered {
            return self.ask(gateway, Asked::Enroll(wire::Enroll::default()));
        }
        let (client, samples) = (self.id(), 5 + self.number as u32);
        let asked = self.at(gateway, |gateway| gateway.poll(client, samples)).flatten();
        let Some(turn) = asked else { return };
        if self.world.chance(20) {
            self.world.said.lock().unwrap().declined.insert((turn, client));
            return self.ask(gateway, Asked::Message(declined(turn, "busy")));
        }
        // Once is enough, and some send again, or something else.
        let sent = self.world.said.lock().unwrap().taken.contains_key(&(turn, client));
        if sent && !self.world.chance(100) {
            return;
        }
        let other = self.world.chance(30);
        let gateway = self.world.below(2) as usize;
        self.send(gateway, turn, other);
    }

    fn send(&self, gateway: usize, turn: Turn, other: bool) {
        let body = self.body(turn, other);
        let (client, digest) = (self.id(), Digest::of(&body));
        let finish = wire::Finish {
            round: turn.round,
            attempt: turn.attempt,
            digest: digest.0.to_vec(),
            samples: 5 + self.number as u32,
            ..Default::default()
        };
        let taken = Taken { client, digest, bytes: body.len() as u64, finish, body: None };
        let told = self.at(gateway, |gateway| gateway.take(taken, turn, &body));
        if let Some(outcome) = told.flatten() {
            self.world.told(turn, client, digest, outcome);
        }
    }

    fn body(&self, turn: Turn, other: bool) -> Vec<u8> {
        let of = self.number as u32 * 1009 + turn.round * 97 + turn.attempt * 13 + u32::from(other);
        let value = |at: usize| ((at as u32 * 31 + of) % 193) as f32 * 1e-3 - 0.09;
        Codec::full(&(0..self.world.initial.len()).map(value).collect::<Vec<f32>>())
    }
}
