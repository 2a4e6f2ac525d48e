//! A server, its clients and the time they live in.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ed25519_dalek::SigningKey;
use tern_fl::host::files::{Durability, Faults};
use tern_fl::host::store::ClientStore;
use tern_fl::layout::{ModelKind, TensorSpec};
use tern_fl::plan::{Encoding, Secure, Selection};
use tern_fl::server::federation::{Federation, Options};
use tern_fl::{ClientId, Digest, Millis, Refusal, RunId, RunPlan, Turn, wire};

use crate::disk::{self, Files, Harm};
use crate::liar::Lie;
use crate::member::{Around, Member};
use crate::network::{Answer, Event, Queue, Request, Weather};
use crate::oracle::Oracle;
use crate::random::Random;

mod harm;

/// Milliseconds of bad weather.
const STORM: u64 = 40_000;
/// Milliseconds after it in which a run must end.
const REST: u64 = 600_000;
/// Milliseconds from tick to tick.
const TICK: u64 = 250;

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub rounds: u64,
    pub repeated: u64,
    pub server_ends: u64,
    pub client_ends: u64,
    pub faults: u64,
    pub jumps: u64,
    /// Starts after harm to the disk: where nothing was lost by it, where it was named, and of
    /// those the ones after which the run was repaired.
    pub unharmed: u64,
    pub named: u64,
    pub repaired: u64,
    pub refused: u64,
    pub events: u64,
    /// Clients that broke the protocol of secure aggregation and were found out.
    pub excluded: u64,
    /// Runs that went on after the storm.
    pub outlived: u64,
    /// Secure rounds without a model, in which shares were revealed.
    pub abandoned: u64,
}

impl Summary {
    pub fn add(&mut self, other: &Summary) {
        self.rounds += other.rounds;
        self.repeated += other.repeated;
        self.server_ends += other.server_ends;
        self.client_ends += other.client_ends;
        self.faults += other.faults;
        self.jumps += other.jumps;
        self.unharmed += other.unharmed;
        self.named += other.named;
        self.repaired += other.repaired;
        self.refused += other.refused;
        self.events += other.events;
        self.excluded += other.excluded;
        self.outlived += other.outlived;
        self.abandoned += other.abandoned;
    }

    pub fn check(&self) {
        let Summary {
            repeated, server_ends, client_ends, faults, jumps, refused, outlived, ..
        } = *self;
        let Summary { unharmed, named, repaired, .. } = *self;
        let harm = [unharmed, named, repaired];
        for count in [repeated, server_ends, client_ends, faults, jumps, refused, outlived] {
            assert!(count > 0, "{self:?}");
        }
        assert!(harm.iter().all(|count| *count > 0), "{self:?}");
    }
}

struct World {
    random: Random,
    weather: Weather,
    queue: Queue,
    oracle: Oracle,
    now: u64,
    /// What is added to the time on the server's clock.
    clock: i64,
    plan: RunPlan,
    initial: Vec<f32>,
    folder: PathBuf,
    server: Option<Federation>,
    /// Of the last end of the server.
    harm: Option<Harm>,
    /// The server's files some time ago.
    earlier: Files,
    members: Vec<Member>,
    faults: Arc<AtomicU32>,
    count: u64,
    summary: Summary,
    verbose: bool,
}

/// Rounds whose updates the server sees.
pub fn clear(seed: u64, verbose: bool) -> Summary {
    let mut random = Random::new(seed);
    let clients = random.within(2..=5);
    let mut plan = plan(&mut random, clients);
    let encodings = [Encoding::Full, Encoding::Half, Encoding::Ternary];
    plan.updates.uplink = encodings[random.below(3) as usize];
    run(random, plan, clients as usize, None, verbose)
}

/// Rounds of which the server sees sums.
pub fn secure(seed: u64, verbose: bool) -> Summary {
    let mut random = Random::new(seed);
    let clients = random.within(3..=5);
    let mut plan = plan(&mut random, clients);
    plan.rounds = plan.rounds.min(2);
    plan.evaluation.on_clients = false;
    plan.cohort.size = random.within(3..=clients) as u32;
    plan.cohort.minimum = random.within(2..=3) as u32;
    let mut secure = Secure::default();
    (secure.corrupt, secure.dropout, secure.limit) = (0.0, 0.34, 4.0);
    secure.honest = 2;
    plan.secure = Some(secure);
    if random.chance(500) {
        plan.updates.uplink = Encoding::Ternary;
        plan.cohort.selection = Selection::BySamples;
    }
    // Without the liar there are as many left as a session takes.
    let lies = clients > 3 && random.chance(400);
    let liar = lies.then(|| {
        let lies = [Lie::Garbage, Lie::Accuses, Lie::Reveals];
        (random.below(clients) as usize, lies[random.below(3) as usize])
    });
    run(random, plan, clients as usize, liar, verbose)
}

fn plan(random: &mut Random, clients: u64) -> RunPlan {
    let tensors = [("a", vec![7, 3]), ("b", vec![5])];
    let tensor = |(name, shape): (&str, Vec<usize>)| TensorSpec { name: name.into(), shape };
    let model = ModelKind::Tensors(tensors.map(tensor).to_vec());
    let mut plan = RunPlan::new("seeds", model, random.within(1..=3) as u32);
    let size = random.within(1..=clients) as u32;
    let cohort = &mut plan.cohort;
    cohort.size = size;
    cohort.over_selection = if random.chance(500) { 1.0 } else { 1.5 };
    cohort.minimum = random.within(1..=u64::from(size)) as u32;
    let uniform = random.chance(500);
    cohort.selection = if uniform { Selection::Uniform } else { Selection::BySamples };
    cohort.gather_ms = random.within(500..=3_000);
    cohort.deadline_ms = random.within(4_000..=15_000);
    cohort.step_ms = random.within(2_000..=6_000);
    plan.seed = random.word() as u32;
    plan.evaluation.on_clients = random.chance(300);
    if random.chance(300) {
        plan.updates.downlink = Encoding::Ternary;
    }
    plan
}

/// A folder in memory where there is one: thousands of runs, each with thousands of writes.
fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn run(
    mut random: Random,
    plan: RunPlan,
    clients: usize,
    liar: Option<(usize, Lie)>,
    verbose: bool,
) -> Summary {
    let folder = folder();
    let weather = Weather::draw(&mut random);
    let layout = plan.check().unwrap();
    let mut initial: Vec<f32> =
        (0..layout.elements()).map(|_| random.below(1_000) as f32 / 500.0 - 0.999).collect();
    layout.clear_padding(&mut initial);
    let mut world = World {
        random,
        weather,
        queue: Queue::default(),
        oracle: Oracle::default(),
        now: 0,
        clock: 1_700_000_000_000,
        plan,
        initial,
        folder: folder.path().join("server"),
        server: None,
        harm: None,
        earlier: Files::new(),
        members: Vec::new(),
        faults: Arc::default(),
        count: 0,
        summary: Summary::default(),
        verbose,
    };
    world.say(|| format!("{clients} clients, {liar:?} of them lies, {weather:?}"));
    world.open(u64::MAX);
    let run = RunId([1; 16]);
    for index in 0..clients {
        let key = SigningKey::from_bytes(&Digest::of(&[index as u8]).0);
        let client = ClientId(key.verifying_key().to_bytes());
        let time = world.time();
        let server = world.server.as_mut().unwrap();
        server.enroll(time, client, None).unwrap();
        let own = folder.path().join(format!("client-{index}"));
        let store = ClientStore::open(&own, &run, Durability::Process).unwrap();
        let lie = liar.filter(|(liar, _)| *liar == index).map(|(_, lie)| lie);
        let member = Member::new(index, server.task().clone(), store, key, lie);
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
        Options::default()
            .durability(Durability::None)
            .max_bytes(max_bytes)
            .presence_ms(8_000)
            .run(RunId([1; 16]))
            .simulated(self.plan.seed)
            .faults(Faults::counting(self.faults.clone()))
    }

    fn open(&mut self, max_bytes: u64) {
        let options = self.options(max_bytes);
        let opened = Federation::open(&self.folder, &self.plan, &self.initial, options);
        self.server = Some(match (opened, self.harm.take()) {
            (Ok(server), None) => server,
            (Err(error), None) => panic!("{error}"),
            (Ok(server), Some(harm)) => self.unharmed(server, &harm),
            (Err(error), Some(harm)) => self.mended(&error.to_string(), &harm),
        });
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
        };
        act(&mut self.members[client], &mut around)
    }

    /// Until every client has heard that the run is over; false if it can't be.
    fn live(&mut self) -> bool {
        let mut storm = true;
        while !self.members.iter().all(|member| member.stopped) {
            let (time, event) = self.queue.next().unwrap();
            self.now = time;
            self.summary.events += 1;
            if storm && time > STORM {
                storm = false;
                self.summary.outlived += 1;
                self.clear_up();
            }
            if time >= STORM + REST {
                let server = self.server.as_ref().unwrap();
                assert!(server.coordinator().is_barred(), "it doesn't end: {:?}", server.status());
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
        self.server = None;
        self.faults.store(0, Ordering::Relaxed);
        self.open(max_bytes);
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
                self.summary.client_ends += 1;
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
            self.summary.jumps += 1;
            self.clock += jump;
        }
    }

    fn end_server(&mut self) {
        self.say(|| "server ends".into());
        self.summary.server_ends += 1;
        self.faults.store(0, Ordering::Relaxed);
        self.kill();
        let time = self.now + self.random.below(4_000);
        self.queue.at(time, Event::Restart);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request { client, number, request } => {
                if let Some(answer) = self.served(client, request) {
                    let answer = Event::Answer { client, number, answer };
                    let World { queue, random, weather, now, .. } = self;
                    queue.send(random, weather, *now, &answer);
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
            Event::Tick => {
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
            self.summary.faults += 1;
            self.say(|| "a write failed".into());
            // The process ended between two writes, or lives on.
            if self.random.chance(500) {
                self.end_server();
                return None;
            }
        }
        Some(result)
    }

    fn ticked(&mut self) {
        if self.weather.harm > 0 && self.server.is_some() && self.random.chance(30) {
            self.earlier = disk::copy(&self.folder);
        }
        let ticked = self.on_server(|server, time| server.tick(time).map_err(|e| e.to_string()));
        if let Some(Err(reason)) = ticked {
            self.say(|| format!("tick: {reason}"));
            let known = ["no space", "a fault was asked for"];
            assert!(known.iter().any(|known| reason.contains(known)), "{reason}");
        }
        let Some(server) = &self.server else { return };
        // Models, and for each client that was asked an update and a partial one.
        let most = (12 + 2 * u64::from(self.plan.cohort.asked())) * 4 * self.initial.len() as u64;
        let stored = server.status().stored;
        assert!(stored <= most, "{stored} bytes of bodies, at most {most}");
    }

    fn served(&mut self, client: usize, request: Request) -> Option<Answer> {
        let id = self.members[client].client;
        let finish = match &request {
            Request::Finish(finish) => Some(finish.clone()),
            _ => None,
        };
        let answer = self.on_server(|server, time| serve(server, time, &id, request))?;
        match (&answer, finish) {
            (Answer::Ack, Some(finish)) => {
                let turn = Turn::new(finish.round, finish.attempt);
                let digest = Digest::from_slice(&finish.digest).unwrap();
                self.oracle.acknowledged(id, turn, digest);
                self.say(|| format!("client {client} uploaded for {turn}"));
            }
            (Answer::Refused(name, _), _) => {
                self.summary.refused += 1;
                self.say(|| format!("client {client} is refused: {name}"));
            }
            _ => {}
        }
        Some(answer)
    }

    /// The run is over: was it right?
    fn judge(&mut self) {
        if self.server.is_none() {
            self.open_again(u64::MAX);
        }
        let Some(server) = &self.server else { return };
        self.oracle.check(&self.plan, &self.initial, server);
        for client in server.status().excluded.keys() {
            let member = self.members.iter().find(|member| member.client == *client).unwrap();
            assert!(member.lies(), "client {} is out and never lied", member.index);
            self.summary.excluded += 1;
        }
        for round in server.rounds(0).unwrap() {
            self.summary.rounds += 1;
            self.summary.repeated += u64::from(round.attempt > 1);
        }
        self.summary.abandoned += u64::from(self.plan.rounds) - self.summary.rounds;
        for member in &self.members {
            let kept = member.store().load().unwrap();
            assert_eq!(kept.pending, None, "client {} waits", member.index);
            let expected = self.oracle.residual(server, &self.plan, &member.client);
            assert_eq!(kept.residual, expected, "residual of client {}", member.index);
        }
    }
}

fn serve(server: &mut Federation, time: Millis, client: &ClientId, request: Request) -> Answer {
    let refused = |refusal: Refusal| Answer::Refused(refusal.name(), refusal.is_temporary());
    let told = |result: Result<wire::Ack, Refusal>| result.map_or_else(refused, |_| Answer::Ack);
    match request {
        Request::Poll { samples } => {
            server.poll(time, client, samples).map_or_else(refused, Answer::Instruction)
        }
        Request::Message(message) => told(server.message(time, client, message)),
        Request::Offset(turn) => {
            server.upload_offset(client, turn).map_or_else(refused, Answer::Offset)
        }
        Request::Append { turn, offset, bytes } => {
            let appended = server.upload_append(client, turn, offset, &bytes);
            appended.map_or_else(refused, Answer::Offset)
        }
        Request::Finish(finish) => told(server.upload_finish(time, client, finish)),
        Request::Fetch(digest) => {
            let path = server.blob(&digest).ok();
            let bytes = path.and_then(|path| std::fs::read(path).ok());
            bytes.map_or(Answer::Nothing, Answer::Body)
        }
    }
}
