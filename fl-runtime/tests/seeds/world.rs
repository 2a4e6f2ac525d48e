//! A server, its clients and the time they live in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ed25519_dalek::SigningKey;
use tern_fl::host::files::{Durability, Faults};
use tern_fl::host::store::ClientStore;
use tern_fl::secagg::Parameters;
use tern_fl::server::federation::{Admission, Evaluator, Federation, Options};
use tern_fl::update::Codec;
use tern_fl::{ClientId, Digest, Millis, RunId};

use crate::disk::{Files, Harm};
use crate::member::{Around, Member};
use crate::network::{Event, Queue, Weather};
use crate::oracle::Oracle;
use crate::random::Random;
use crate::setup::{Central, Setup};
use crate::signed::{Door, Overheard};
use crate::summary::Summary;
use enroll::Strangers;
use serve::{InHand, Making};

mod door;
mod enroll;
mod harm;
mod serve;

/// Milliseconds of bad weather.
const STORM: u64 = 40_000;
/// Milliseconds after it in which a run must end.
const REST: u64 = 600_000;
/// Milliseconds from tick to tick.
const TICK: u64 = 250;

struct World {
    random: Random,
    setup: Setup,
    /// At the moment.
    weather: Weather,
    queue: Queue,
    oracle: Oracle,
    now: u64,
    /// What is added to the time on the server's clock.
    clock: i64,
    initial: Vec<f32>,
    folder: PathBuf,
    server: Option<Federation>,
    /// What it is in the middle of.
    in_hand: InHand,
    making: Option<Making>,
    /// Where requests have to pass, if they are signed.
    door: Option<Door>,
    overheard: Overheard,
    /// Of the last end of the server.
    harm: Option<Harm>,
    /// The server's files some time ago.
    earlier: Files,
    members: Vec<Member>,
    strangers: Strangers,
    faults: Arc<AtomicU32>,
    count: u64,
    summary: Summary,
    verbose: bool,
}

/// A folder in memory where there is one: thousands of runs, each with thousands of writes.
fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// A run as a seed has it.
pub fn run(setup: impl Fn(&mut Random) -> Setup, seed: u64, verbose: bool) -> Summary {
    let mut random = Random::new(seed);
    let setup = setup(&mut random);
    let folder = folder();
    let layout = setup.plan.check().unwrap();
    let mut initial: Vec<f32> =
        (0..layout.elements()).map(|_| random.below(1_000) as f32 / 500.0 - 0.999).collect();
    layout.clear_padding(&mut initial);
    if let Some(transfer) = &setup.transfer {
        initial = transfer.initial();
    }
    let mut world = World {
        random,
        weather: setup.weather,
        setup,
        queue: Queue::default(),
        oracle: Oracle::default(),
        now: 0,
        clock: 1_700_000_000_000,
        initial,
        folder: folder.path().join("server"),
        server: None,
        in_hand: InHand::default(),
        making: None,
        harm: None,
        door: None,
        overheard: Overheard::default(),
        earlier: Files::new(),
        members: Vec::new(),
        strangers: Strangers::default(),
        faults: Arc::default(),
        count: 0,
        summary: Summary::default(),
        verbose,
    };
    let Setup { clients, liars, plan, .. } = &world.setup;
    world.say(|| format!("{clients} clients, {liars:?} lie, {plan:?}, {:?}", world.weather));
    world.open(u64::MAX);
    let run = RunId([1; 16]);
    for index in 0..world.setup.clients {
        let key = key(index);
        let server = world.server.as_mut().unwrap();
        let own = folder.path().join(format!("client-{index}"));
        let store = ClientStore::open(&own, &run, Durability::Process).unwrap();
        let token = world.setup.tokens.then(|| enroll::token(index));
        let lie = world.setup.liars.get(&index).copied();
        let claims = world.setup.claims == Some(index);
        let asks = (lie, claims, world.setup.difference);
        let node = world.setup.transfer.as_ref().map(|transfer| transfer.node(index));
        let member = Member::new(index, server.task().clone(), store, (key, token), asks, node);
        world.members.push(member);
        let time = world.random.below(1_000);
        world.queue.at(time, Event::Revive { client: index });
    }
    world.queue.at(TICK, Event::Tick);
    if world.live() {
        world.judge();
    }
    world.summary
}

/// The key of a client.
fn key(index: usize) -> SigningKey {
    SigningKey::from_bytes(&Digest::of(&[index as u8]).0)
}

fn id(key: &SigningKey) -> ClientId {
    ClientId(key.verifying_key().to_bytes())
}

impl World {
    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>7} {}", self.now, what());
        }
    }

    fn time(&self) -> Millis {
        Millis(self.now.saturating_add_signed(self.clock))
    }

    fn options(&self, max_bytes: u64) -> Options {
        let evaluator = self.setup.evaluated.then(|| Arc::new(Central) as Arc<dyn Evaluator>);
        let admission = match self.setup.tokens {
            true => Admission::Tokens(enroll::tokens(self.setup.clients)),
            false => Admission::Open,
        };
        Options::default()
            .admission(admission)
            .strategy(self.setup.brought())
            .evaluator(evaluator)
            .durability(Durability::None)
            .max_bytes(max_bytes)
            .presence_ms(8_000)
            .run(RunId([1; 16]))
            .simulated(self.setup.plan.seed)
            .faults(Faults::counting(self.faults.clone()))
    }

    fn open(&mut self, max_bytes: u64) {
        let options = self.options(max_bytes);
        let opened = Federation::open(&self.folder, &self.setup.plan, &self.initial, options);
        self.server = Some(match (opened, self.harm.take()) {
            (Ok(server), None) => server,
            (Err(error), None) => panic!("{error}"),
            (Ok(server), Some(harm)) => self.unharmed(server, &harm),
            (Err(error), Some(harm)) => self.mended(&error.to_string(), &harm),
        });
        self.open_door();
        self.say(|| "server starts".into());
    }

    fn with<T>(&mut self, client: usize, act: impl FnOnce(&mut Member, &mut Around<'_>) -> T) -> T {
        let mut around = Around {
            now: self.now,
            random: &mut self.random,
            weather: &self.weather,
            queue: &mut self.queue,
            oracle: &mut self.oracle,
            count: &mut self.count,
            signed: self.setup.signed,
        };
        act(&mut self.members[client], &mut around)
    }

    /// Until every client has heard that the run is over; false if it can't be.
    fn live(&mut self) -> bool {
        let mut storm = true;
        while !self.members.iter().all(|member| member.stopped.is_some()) {
            let (time, event) = self.queue.next().unwrap();
            self.now = time;
            self.summary.note("events");
            if storm && time > STORM {
                storm = false;
                self.summary.note("outlived");
                self.clear_up();
            }
            if time >= STORM + REST {
                let server = self.server.as_ref().unwrap();
                let barred = server.coordinator().is_barred();
                assert!(barred, "it doesn't end: {:?}", server.status());
                return false;
            }
            if storm {
                self.trouble();
            }
            self.happen(event);
        }
        true
    }

    /// The weather is fine from now on, and everyone is up.
    fn clear_up(&mut self) {
        self.say(|| "the storm is over".into());
        self.weather = Weather::FAIR;
        self.open_again(u64::MAX);
        for client in 0..self.members.len() {
            if !self.members[client].running() {
                self.with(client, |member, around| member.start(around));
            }
        }
    }

    fn open_again(&mut self, max_bytes: u64) {
        self.close();
        self.faults.store(0, Ordering::Relaxed);
        self.open(max_bytes);
    }

    /// The server's process is gone, with what it was in the middle of.
    fn close(&mut self) {
        self.server = None;
        self.door = None;
        self.in_hand = InHand::default();
        self.making = None;
    }

    /// Processes end, clocks are set.
    fn trouble(&mut self) {
        if self.random.chance(self.weather.server_ends) && self.server.is_some() {
            self.end_server();
        }
        if self.random.chance(self.weather.client_ends) {
            let client = self.random.below(self.members.len() as u64) as usize;
            if self.members[client].running() {
                self.say(|| format!("client {client} ends"));
                self.summary.note("client ends");
                self.members[client].end();
                let time = self.now + self.random.below(6_000);
                self.queue.at(time, Event::Revive { client });
            }
        }
        if self.random.chance(self.weather.jumps) {
            let jump = match self.random.chance(500) {
                true => self.random.below(30_000) as i64,
                false => -(self.random.below(3_600_000) as i64),
            };
            self.say(|| format!("the server's clock is set by {jump}"));
            self.summary.note("jumps");
            self.clock += jump;
        }
        if self.setup.signed && self.random.chance(20) {
            self.somebody_replays();
        }
    }

    fn end_server(&mut self) {
        self.say(|| "server ends".into());
        self.summary.note("server ends");
        self.faults.store(0, Ordering::Relaxed);
        self.kill();
        let time = self.now + self.random.below(4_000);
        self.queue.at(time, Event::Restart);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request { client, number, request, signed } => {
                if signed.is_none_or(|signed| self.passes(client, number, &request, *signed)) {
                    self.serve(client, number, request);
                }
            }
            Event::Answer { client, number, answer } => {
                self.with(client, |member, around| member.answered(around, number, answer));
            }
            Event::Wake { client, life } => {
                self.with(client, |member, around| member.woken(around, life));
            }
            Event::Revive { client } => {
                if !self.members[client].running() {
                    self.say(|| format!("client {client} starts"));
                    self.with(client, |member, around| member.start(around));
                }
            }
            Event::Restart => {
                if self.server.is_none() {
                    // Sometimes there is next to no space.
                    let tight = self.now < STORM && self.random.chance(200);
                    let most = if tight { 512 * self.random.within(1..=12) } else { u64::MAX };
                    self.open_again(most);
                }
            }
            Event::Step { client, number } => self.step(client, number),
            Event::Make => {
                if let Some(making) = self.making.take() {
                    self.make(making);
                }
            }
            Event::Tick => {
                if self.setup.tokens && self.now < STORM && self.random.chance(50) {
                    self.a_stranger_comes();
                }
                self.ticked();
                self.queue.at(self.now + TICK, Event::Tick);
            }
        }
    }

    /// Runs something on the server, in which a write may fail. `None` if there is no server, or
    /// none any more.
    fn on_server<T>(&mut self, act: impl FnOnce(&mut Federation, Millis) -> T) -> Option<T> {
        let time = self.time();
        if self.random.chance(self.weather.faults) {
            self.faults.store(self.random.within(1..=3) as u32, Ordering::Relaxed);
        }
        let armed = self.faults.load(Ordering::Relaxed);
        let result = act(self.server.as_mut()?, time);
        let failed = armed > 0 && self.faults.swap(0, Ordering::Relaxed) == 0;
        if failed {
            self.summary.note("faults");
            self.say(|| "a write failed".into());
            // The process ended between two writes, or lives on.
            if self.random.chance(500) {
                self.end_server();
                return None;
            }
        }
        Some(result)
    }

    /// The run is over: was it right?
    fn judge(&mut self) {
        if self.server.is_none() {
            self.open_again(u64::MAX);
        }
        let Some(server) = &self.server else { return };
        let kept: BTreeMap<ClientId, _> = self
            .members
            .iter()
            .map(|member| (member.client, member.store().load().unwrap()))
            .collect();
        for (client, kept) in &kept {
            assert_eq!(kept.pending, None, "{client} waits");
        }
        let verdict = self.oracle.check(&self.setup, &self.initial, server, &kept);
        for member in &self.members {
            assert_eq!(member.stopped, Some(verdict.best), "told to client {}", member.index);
        }
        let ended = server.coordinator().told_end();
        assert!(ended.is_none_or(|ended| ended.model == verdict.best), "{ended:?} never was");
        self.summary.count("claimed", u64::from(self.setup.claims.is_some()));
        if self.setup.difference > 0 {
            self.summary.note("difference");
        }
        for client in server.status().excluded.keys() {
            let member = self.members.iter().find(|member| member.client == *client).unwrap();
            assert!(member.lies(), "client {} is out and never lied", member.index);
            self.summary.note("excluded");
        }
        self.strangers.check(server);
        let rounds = server.rounds(0).unwrap();
        let plan = &self.setup.plan;
        for round in &rounds {
            self.summary.note("rounds");
            self.summary.count("repeated", u64::from(round.attempt > 1));
            if let Some(secure) = &plan.secure
                && let Ok(session) =
                    Parameters::choose(round.updates as usize, &secure.assumptions())
            {
                // It had as many members as there are updates, or more.
                self.summary.count("sparse", u64::from(!session.all_pairs()));
            }
        }
        if let Some(transfer) = &self.setup.transfer {
            let clients: Vec<ClientId> = self.members.iter().map(|member| member.client).collect();
            let model = Codec::full(&transfer.undisturbed(plan, &clients));
            assert_eq!(rounds.last().unwrap().model, Digest::of(&model), "without a server");
        }
        let strategy = plan.strategy.build(Some(&self.setup.brought())).unwrap();
        let strategy = ["average", "adam", "align", "yogi", "momentum"]
            .into_iter()
            .find(|name| *name == strategy.name());
        let kept_optimizer = kept.values().filter(|kept| kept.optimizer.steps > 1).count();
        if rounds.len() > 1 {
            self.summary.note(strategy.unwrap());
        }
        self.summary.count("kept optimizers", kept_optimizer as u64);
        self.summary.count("impatient", u64::from(verdict.impatient));
        if !verdict.impatient {
            self.summary.count("abandoned", u64::from(plan.rounds) - rounds.len() as u64);
        }
    }
}
