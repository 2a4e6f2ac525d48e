//! The processes of a fleet and their clients, one step after the other as a seed has it. A call
//! that hangs lets others go on, so that whoever made it may be a zombie when it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tern_protocol::layout::{ModelKind, TensorSpec};
use tern_protocol::{ClientId, Digest, RunPlan, Turn};
use tern_server::federation::{Options, audit_of};

use super::random::Random;
use super::roles::{Aggregator, Client, Gateway, Leads};
use super::sim::{Sim, SimLedger};
use super::state::State;
use super::summary::Summary;
use crate::Outcome;

/// Milliseconds of bad weather, and after it, in which a run must end.
const STORM: u64 = 60_000;
const REST: u64 = 300_000;
pub const CLIENTS: usize = 7;

/// What goes wrong, in thousandths of calls.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    /// Calls without an answer, before or after their effect, each.
    pub lost: u64,
    /// Calls that take long.
    pub hangs: u64,
    /// Calls with which their process ends.
    pub ends: u64,
    /// Reads of the store that give other bytes.
    pub lies: u64,
}

pub enum Process {
    Gateway(Box<Gateway>),
    Leader(Box<Leads>),
    Aggregator(Aggregator),
    Client(Client),
}

struct Slot {
    /// Away while it is at work.
    process: Option<Process>,
    /// Ended: it starts anew then.
    ended: Option<u64>,
}

/// What was said to clients.
#[derive(Default)]
pub struct Said {
    /// Updates that are counted.
    pub taken: BTreeMap<(Turn, ClientId), Digest>,
    /// Whose update is in no attempt of this number.
    pub closed: BTreeSet<(Turn, ClientId)>,
    pub declined: BTreeSet<(Turn, ClientId)>,
    /// Updates that a store lied about, to an aggregator.
    pub lied: BTreeSet<(Turn, ClientId)>,
}

pub struct World {
    pub plan: RunPlan,
    pub initial: Vec<f32>,
    state: Mutex<State>,
    slots: Mutex<Vec<Slot>>,
    random: Mutex<Random>,
    weather: Mutex<Weather>,
    summary: Mutex<Summary>,
    pub said: Mutex<Said>,
    /// What a leader failed by last.
    pub trouble: Mutex<String>,
    /// How many calls hang, one within the other.
    depth: Mutex<u32>,
}

fn plan(random: &mut Random) -> RunPlan {
    let weights = TensorSpec { name: "w".into(), shape: vec![5] };
    let mut plan = RunPlan::new("weights", ModelKind::Tensors(vec![weights]), 3);
    (plan.cohort.size, plan.cohort.minimum) = (5, 2);
    plan.cohort.over_selection = random.pick(&[1.0, 1.4]);
    (plan.cohort.gather_ms, plan.cohort.deadline_ms) = (500, random.pick(&[3_000, 15_000]));
    plan
}

/// A run as a seed has it.
pub fn run(seed: u64, aloud: bool) -> Summary {
    let mut random = Random::new(seed);
    let plan = plan(&mut random);
    let weather = Weather {
        lost: random.pick(&[0, 5, 40]),
        hangs: random.pick(&[0, 10, 40]),
        ends: random.pick(&[0, 5, 20]),
        lies: random.pick(&[0, 0, 50]),
    };
    let elements = plan.check().unwrap().elements();
    let world = Arc::new(World {
        initial: vec![0.25; elements],
        plan,
        state: Mutex::default(),
        slots: Mutex::default(),
        random: Mutex::new(random),
        weather: Mutex::new(weather),
        summary: Mutex::default(),
        said: Mutex::default(),
        trouble: Mutex::default(),
        depth: Mutex::default(),
    });
    world.state().now = 1_000_000;
    for process in 0..6 + CLIENTS {
        let process = Some(world.begin(process));
        world.slots.lock().unwrap().push(Slot { process, ended: None });
    }
    let begun = world.state().now;
    let passed = || world.state().now - begun;
    while world.state().rounds.len() < world.plan.rounds as usize {
        if passed() > STORM {
            *world.weather.lock().unwrap() = Weather::default();
        }
        let (summary, trouble) = (world.summary.lock().unwrap(), world.trouble.lock().unwrap());
        assert!(passed() < STORM + REST, "it doesn't end, {summary:?}: {trouble}");
        drop((summary, trouble));
        world.step();
    }
    if aloud {
        println!("after {} ms: {:?}", passed(), world.summary.lock().unwrap());
    }
    world.judge();
    // They have the world, which has them.
    world.slots.lock().unwrap().clear();
    world.summary.lock().unwrap().clone()
}

impl World {
    fn begin(self: &Arc<Self>, process: usize) -> Process {
        let sim = Sim { world: self.clone(), process: Some(process) };
        match process {
            0 | 1 => Process::Gateway(Box::new(Gateway::new(sim))),
            2 | 3 => Process::Leader(Box::new(Leads::new(sim))),
            4 | 5 => Process::Aggregator(Aggregator::new(sim)),
            number => Process::Client(Client::new(self.clone(), number - 6)),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn weather(&self) -> Weather {
        *self.weather.lock().unwrap()
    }

    pub fn chance(&self, thousandths: u64) -> bool {
        self.random.lock().unwrap().chance(thousandths)
    }

    pub fn below(&self, end: u64) -> u64 {
        self.random.lock().unwrap().below(end)
    }

    pub fn note(&self, what: &'static str) {
        self.summary.lock().unwrap().note(what);
    }

    pub fn count(&self, what: &'static str, times: u64) {
        self.summary.lock().unwrap().count(what, times);
    }

    pub fn is_ended(&self, process: usize) -> bool {
        self.slots.lock().unwrap()[process].ended.is_some()
    }

    /// `kill -9`.
    pub fn end(&self, process: usize) {
        self.note("ends");
        let again = self.state().now + self.below(4_000);
        self.slots.lock().unwrap()[process].ended = Some(again);
    }

    /// Others go on for a while.
    pub fn pass(self: &Arc<Self>, time: u64) {
        let end = self.state().now + time;
        if *self.depth.lock().unwrap() < 3 {
            *self.depth.lock().unwrap() += 1;
            while self.state().now < end {
                self.step();
            }
            *self.depth.lock().unwrap() -= 1;
        }
        let mut state = self.state();
        state.now = state.now.max(end);
    }

    /// Somebody who isn't at work does something.
    fn step(self: &Arc<Self>) {
        let passed = self.random.lock().unwrap().within(0..=40);
        self.state().now += passed;
        let process = self.below(6 + CLIENTS as u64) as usize;
        self.with(process, |process| match process {
            Process::Gateway(gateway) => gateway.step(),
            Process::Leader(leader) => leader.step(),
            Process::Aggregator(aggregator) => aggregator.step(),
            Process::Client(client) => client.step(),
        });
    }

    /// Has a process do something, if it is there.
    pub fn with<T>(
        self: &Arc<Self>,
        number: usize,
        act: impl FnOnce(&mut Process) -> T,
    ) -> Option<T> {
        let now = self.state().now;
        let mut process = {
            let mut slots = self.slots.lock().unwrap();
            let slot = &mut slots[number];
            match slot.ended {
                Some(again) if again > now => return None,
                Some(_) if slot.process.is_none() => {
                    slot.ended = None;
                    drop(slots);
                    self.begin(number)
                }
                _ => slot.process.take()?,
            }
        };
        let done = act(&mut process);
        let mut slots = self.slots.lock().unwrap();
        match slots[number].ended {
            // Nobody hears of what it did.
            Some(_) => {
                drop(slots);
                None
            }
            None => {
                slots[number].process = Some(process);
                Some(done)
            }
        }
    }

    /// What was said to clients holds, and each model has the bits of one machine.
    fn judge(self: &Arc<Self>) {
        let sim = Sim { world: self.clone(), process: None };
        let ledger = SimLedger::new(&sim, -1);
        let options = Options::default();
        let audits = audit_of(&ledger, Arc::new(sim.clone()), &self.initial, &options).unwrap();
        assert_eq!(audits.len(), self.plan.rounds as usize);
        for audit in &audits {
            assert!(audit.holds(), "{audit:?}");
        }
        let (said, state) = (self.said.lock().unwrap(), self.state());
        for ((turn, client), digest) in &said.taken {
            let there = &state.members[&(*turn, *client)];
            assert_eq!(there.digest, *digest, "{turn}: {client}");
        }
        for key in &said.closed {
            assert!(!state.members.contains_key(key), "{key:?} was told that it isn't in it");
        }
        for round in &state.rounds {
            let turn = Turn::new(round.round, round.attempt);
            let counted: BTreeMap<ClientId, Digest> =
                round.uploads.iter().map(|upload| (upload.client, upload.digest)).collect();
            assert_eq!(counted.len(), round.uploads.len(), "{turn}: one twice");
            for ((of, client), taken) in &state.members {
                if *of != turn {
                    continue;
                }
                let excused = said.lied.contains(&(turn, *client));
                let excused = excused || said.declined.contains(&(turn, *client));
                match counted.get(client) {
                    Some(digest) => assert_eq!(*digest, taken.digest),
                    None => assert!(excused, "{turn}: {client} was in it, and isn't counted"),
                }
            }
            assert!(counted.keys().all(|client| state.members.contains_key(&(turn, *client))));
        }
    }

    /// That a client was answered.
    pub fn told(&self, turn: Turn, client: ClientId, digest: Digest, outcome: Outcome) {
        let mut said = self.said.lock().unwrap();
        match outcome {
            Outcome::Counted | Outcome::Repeated => {
                self.note(if outcome == Outcome::Counted { "counted" } else { "again" });
                said.taken.insert((turn, client), digest);
            }
            Outcome::Conflict => self.note("conflict"),
            Outcome::Closed => {
                self.note("closed");
                said.closed.insert((turn, client));
            }
        }
    }
}
