//! A federation whose clients are all in this process: trainers in, models and rounds out.
//!
//! It is the protocol itself, [`Federation`] and [`Participant`]s, with calls in place of the
//! network: for trainers of one's own, which a simulation doesn't run, and for secure
//! aggregation. Time is the run's own: it jumps to the next deadline when nobody has anything left
//! to do, so that nothing ever sleeps. The same clients with the same seed give the same models as
//! a simulation and as a run over the network, and so does a run that goes on from its folder
//! ([`Options::resumable`]), but for an attempt at a secure round, which is made again.
//!
//! ```
//! use tern_engine::nn::ModelSpec;
//! use tern_engine::{Device, RowData};
//! use tern_protocol::layout::ModelKind;
//! use tern_protocol::plan::Secure;
//! use tern_protocol::trainer::{EngineTrainer, LocalData};
//! use tern_protocol::RunPlan;
//! use tern_server::local::{Client, Options, run};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::cpu();
//! // Ten points on a line for each of three clients; the class is the sign.
//! let mut clients = Vec::new();
//! for number in 0..3 {
//!     let x: Vec<f32> = (0..10).map(|i| (i * 3 + number) as f32 / 15.0 - 0.95).collect();
//!     let labels: Vec<u32> = x.iter().map(|x| u32::from(*x > 0.0)).collect();
//!     let data = LocalData::Rows(RowData::upload(&device, &x, 1, &labels, 2)?);
//!     clients.push(Client::numbered(number as usize, EngineTrainer::new(&device, data)));
//! }
//! let mut plan = RunPlan::new("signs", ModelKind::Layers(ModelSpec::mlp(1, &[], 2)), 20);
//! (plan.cohort.size, plan.cohort.minimum) = (3, 3);
//! plan.training.learning_rate = 1.0;
//! let mut secure = Secure::default();
//! secure.corrupt = 0.0;
//! plan.secure = Some(secure);
//!
//! let folder = std::env::temp_dir().join(format!("tern-local-{}", std::process::id()));
//! let mut losses = Vec::new();
//! let outcome = run(&plan, None, &mut clients, Options::new(&device, &folder), |round, _model| {
//!     losses.push(round.committed.training["loss"]);
//! })?;
//! assert!(losses[19] < 0.5 * losses[0]);
//! assert_eq!(outcome.rounds, 20);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use tern_engine::Device;
use tern_host::files::Durability;
use tern_host::store::ClientStore;
use tern_protocol::identity::Identity;
use tern_protocol::participant::{
    Action, Input, Participant, RequiredSecurity, SavedState, decline,
};
use tern_protocol::trainer::Trainer;
use tern_protocol::wire::instruction::What;
use tern_protocol::wire::message::Body;
use tern_protocol::{
    ClientId, Digest, Error, Millis, Refusal, Result, RunId, RunPlan, Strategy, wire,
};

use crate::federation::{self, Evaluator, Federation};
use crate::journal::{CommittedRound, CountedUpload};

/// Attempts at a round after which a run gives up: nobody is late, so that the next one would
/// fail, too.
const ATTEMPTS: u32 = 5;

/// A client: who it is, and what it trains with.
#[derive(Debug)]
pub struct Client<T> {
    /// Its key.
    pub identity: Identity,
    /// Its trainer, and with it its data.
    pub trainer: T,
}

impl<T> Client<T> {
    /// A client whose key follows from a number: in one process keys keep nobody out.
    pub fn numbered(number: usize, trainer: T) -> Self {
        let secret = Digest::of(format!("client {number} of a local federation").as_bytes());
        Client { identity: Identity::from_secret(&secret.0), trainer }
    }

    /// Its name.
    pub fn id(&self) -> ClientId {
        self.identity.client()
    }
}

/// What a run needs beside plan and clients.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where updates are encoded; trainers have devices of their own.
    pub device: Device,
    /// Folder of the server's journal and models. It must not hold a run yet, unless that is
    /// resumable.
    pub folder: PathBuf,
    /// Whether the folder has what clients keep, too, so that the run goes on from it after its
    /// process has ended, and takes more rounds once it is over.
    pub resumable: bool,
    /// The run, part of the key of drawn codes.
    pub run: RunId,
    /// A strategy that the plan names.
    pub strategy: Option<Arc<dyn Strategy>>,
    /// Central evaluation, after each round.
    pub evaluator: Option<Arc<dyn Evaluator>>,
}

impl Options {
    /// For a device and a folder.
    pub fn new(device: &Device, folder: impl Into<PathBuf>) -> Self {
        Options {
            device: device.clone(),
            folder: folder.into(),
            resumable: false,
            run: RunId([0; 16]),
            strategy: None,
            evaluator: None,
        }
    }

    /// With what clients keep in the folder, or in memory alone.
    pub fn resumable(mut self, resumable: bool) -> Self {
        self.resumable = resumable;
        self
    }

    /// With the run, part of the key of drawn codes.
    pub fn run(mut self, run: RunId) -> Self {
        self.run = run;
        self
    }

    /// With a strategy that the plan names.
    pub fn strategy(mut self, strategy: impl Into<Option<Arc<dyn Strategy>>>) -> Self {
        self.strategy = strategy.into();
        self
    }

    /// With central evaluation, or without.
    pub fn evaluator(mut self, evaluator: impl Into<Option<Arc<dyn Evaluator>>>) -> Self {
        self.evaluator = evaluator.into();
        self
    }
}

/// Bytes between the server and all clients, without what HTTP and TLS would add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Bodies of updates.
    pub uploaded: u64,
    /// Bodies of models and of differences of models.
    pub downloaded: u64,
    /// Messages of clients: keys, shares and signatures of secure aggregation, and whatever goes
    /// with an update.
    pub messages_up: u64,
    /// Instructions of the server other than to wait.
    pub messages_down: u64,
}

/// A round that was committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// As the journal has it.
    pub committed: CommittedRound,
    /// The updates in it.
    pub counted: Vec<CountedUpload>,
    /// What was sent since the last, failed attempts included.
    pub traffic: Traffic,
    /// Clients that were asked and did not take part, and why.
    pub absent: Vec<(ClientId, String)>,
}

/// What a run comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The last model as clients have it, a flat vector.
    pub model: Vec<f32>,
    /// The best model by the plan's metric; the last if none has a score.
    pub best: Vec<f32>,
    /// Rounds that were committed, those before the run went on included.
    pub rounds: u32,
}

/// Runs a plan from `initial`, or from a model drawn by the plan's seed, until it is over;
/// `on_round` sees each round that is committed, with the model that clients have then; nothing
/// else holds it. A resumable run goes on from where its folder has it. A client whose trainer
/// fails sits the attempt out, and the federation goes on without it.
///
/// # Errors
/// [`Error::Value`] for a plan that makes no sense, a folder that holds a run that isn't resumable
/// or is another one, two clients with one key, or fewer clients with data than a round needs;
/// [`Error::Trainer`] if a round fails again and again; [`Error::File`] and [`Error::Journal`].
pub fn run<T: Trainer>(
    plan: &RunPlan,
    initial: Option<&[f32]>,
    clients: &mut [Client<T>],
    options: Options,
    mut on_round: impl FnMut(&Round, &[f32]),
) -> Result<Outcome> {
    let mut local = Local::open(plan, initial, clients, options)?;
    let mut rounds = local.committed();
    while !local.federation.coordinator().finished() {
        local.pass(clients)?;
        for committed in local.federation.rounds(rounds)? {
            rounds = committed.round;
            let counted = local.federation.counted(committed.round)?;
            let traffic = std::mem::take(&mut local.traffic);
            let absent = std::mem::take(&mut local.absent);
            let model = local.federation.model(&committed.public)?;
            let round = Round { committed, counted, traffic, absent };
            on_round(&round, &model);
        }
    }
    let coordinator = local.federation.coordinator();
    let [model, best] = [coordinator.head().public, coordinator.best_model()];
    let read = |digest| local.federation.model(&digest);
    Ok(Outcome { model: read(model)?, best: read(best)?, rounds })
}

/// A run under way.
struct Local {
    federation: Federation,
    /// In the order of the clients.
    participants: Vec<Participant>,
    /// What they keep, of a resumable run.
    stores: Option<Vec<ClientStore>>,
    now: Millis,
    traffic: Traffic,
    absent: Vec<(ClientId, String)>,
}

impl Local {
    fn open<T>(
        plan: &RunPlan,
        initial: Option<&[f32]>,
        clients: &[Client<T>],
        options: Options,
    ) -> Result<Self> {
        let layout = plan.check()?;
        let kept = options.resumable.then(|| options.folder.join("clients"));
        check_folder(&options.folder, kept.as_deref())?;
        let drawn;
        let initial = match initial {
            Some(initial) => initial,
            None => {
                drawn = layout.parameters().initial(plan.seed);
                drawn.as_slice()
            }
        };
        let durability = match options.resumable {
            true => Durability::Process,
            false => Durability::None,
        };
        let server = federation::Options {
            durability,
            presence_ms: u64::MAX,
            run: Some(options.run),
            simulated: Some(plan.seed),
            strategy: options.strategy,
            evaluator: options.evaluator,
            ..federation::Options::default()
        };
        let mut federation = Federation::open(&options.folder, plan, initial, server)?;
        let run = federation.task().run;
        if run != options.run {
            return Err(Error::value("run of the folder", run, options.run.to_string()));
        }
        let now = federation.coordinator().now();
        let (mut participants, mut stores) = (Vec::new(), kept.as_ref().map(|_| Vec::new()));
        let mut seen = BTreeSet::new();
        for client in clients {
            let id = client.id();
            if !seen.insert(id) {
                return Err(Error::value("key of two clients", id, "one a client"));
            }
            federation.enroll(now, id, None)?;
            let key = client.identity.signing_key();
            let task = federation.task().clone();
            // They are all the caller's own, whose plan says what is enough.
            let promised = RequiredSecurity::promised(&task);
            let mut state = SavedState::default();
            if let (Some(kept), Some(stores)) = (&kept, &mut stores) {
                let store = ClientStore::open(&kept.join(id.to_string()), &run, durability)?;
                state = store.load()?;
                stores.push(store);
            }
            let mut participant = Participant::new(key, task, &options.device, state)?;
            if let Some(promised) = promised {
                participant = participant.requiring(promised)?;
            }
            participants.push(participant);
        }
        let (traffic, absent) = (Traffic::default(), Vec::new());
        Ok(Local { federation, participants, stores, now, traffic, absent })
    }

    /// Rounds that were committed.
    fn committed(&self) -> u32 {
        let coordinator = self.federation.coordinator();
        coordinator.turn().round - u32::from(!coordinator.finished())
    }

    /// Every client asks once and does as it is told, then the server does what is due. If that
    /// changed nothing, time jumps.
    fn pass<T: Trainer>(&mut self, clients: &mut [Client<T>]) -> Result<()> {
        let before = self.federation.version();
        // All are there before any of them asks, so that cohorts are drawn from all.
        for client in &*clients {
            self.federation.greet(self.now, client.id(), client.trainer.samples());
        }
        for (at, client) in clients.iter_mut().enumerate() {
            self.turn(at, client)?;
        }
        self.federation.tick(self.now)?;
        if self.federation.version() == before {
            self.jump(clients)?;
        }
        let turn = self.federation.coordinator().turn();
        if turn.attempt > ATTEMPTS {
            let needed = self.federation.plan().cohort.minimum as usize;
            let absent = std::mem::take(&mut self.absent);
            return Err(Error::TooFew { turn, needed, absent });
        }
        Ok(())
    }

    /// To the deadline, or past the times to gather clients in and to wait for another attempt.
    fn jump<T: Trainer>(&mut self, clients: &[Client<T>]) -> Result<()> {
        let coordinator = self.federation.coordinator();
        let minimum = self.federation.plan().cohort.minimum as usize;
        let with_data = clients.iter().filter(|client| client.trainer.samples() > 0).count();
        if with_data < minimum {
            let expected = format!("at least cohort.minimum, {minimum}");
            return Err(Error::value("clients with data", with_data, expected));
        }
        let gathered = self.now.after(self.federation.plan().cohort.gather_ms);
        let next = self.federation.next_attempt().unwrap_or(gathered);
        self.now = coordinator.deadline().unwrap_or(gathered.max(next));
        self.federation.tick(self.now)
    }

    /// One instruction and all that comes of it.
    fn turn<T: Trainer>(&mut self, at: usize, client: &mut Client<T>) -> Result<()> {
        let id = client.id();
        let instruction = self.federation.poll(self.now, &id, client.trainer.samples())?;
        if !matches!(instruction.what, Some(What::Wait(_)) | None) {
            self.traffic.messages_down += instruction.encoded_len() as u64;
        }
        let participant = &mut self.participants[at];
        participant.set_samples(client.trainer.samples());
        let mut actions: VecDeque<Action> =
            participant.handle(Input::Instruction(instruction))?.into();
        while let Some(action) = actions.pop_front() {
            let input = match action {
                Action::Save => {
                    // Else it is in the participant for as long as this process lives.
                    if let Some(stores) = &self.stores {
                        stores[at].save(self.participants[at].kept())?;
                    }
                    continue;
                }
                Action::Wait => continue,
                Action::Stop(_) => return Ok(()),
                Action::Fetch(digest) => self.fetch(digest)?,
                Action::Send(message) => self.send(&id, message),
                Action::Upload => self.upload(at, &id),
                Action::Train(job) => {
                    let trained = client.trainer.train(self.participants[at].task(), &job);
                    match trained {
                        Ok(trained) => Input::Trained(trained),
                        Err(error) => self.sit_out(&id, decline(job.turn, &error.to_string())),
                    }
                }
                Action::Evaluate(job) => {
                    match client.trainer.evaluate(self.participants[at].task(), &job.model) {
                        Ok((samples, metrics)) => Input::Evaluated { samples, metrics },
                        Err(error) => self.sit_out(&id, decline(job.turn, &error.to_string())),
                    }
                }
            };
            actions.extend(self.participants[at].handle(input)?);
        }
        Ok(())
    }

    fn fetch(&mut self, digest: Digest) -> Result<Input> {
        let bytes = self.federation.blob(&digest)?;
        self.traffic.downloaded += bytes.len() as u64;
        Ok(Input::Fetched { digest, bytes })
    }

    fn send(&mut self, id: &ClientId, message: wire::Message) -> Input {
        self.traffic.messages_up += message.encoded_len() as u64;
        if let Some(Body::Declined(declined)) = &message.body {
            tracing::warn!(client = %id, reason = declined.reason, "sits out");
            self.absent.push((*id, declined.reason.clone()));
        }
        acknowledged(self.federation.message(self.now, id, message))
    }

    /// Tells the server not to wait for this client.
    fn sit_out(&mut self, id: &ClientId, declined: Action) -> Input {
        if let Action::Send(message) = declined {
            self.send(id, message);
        }
        Input::Failed("sits out".into())
    }

    fn upload(&mut self, at: usize, id: &ClientId) -> Input {
        let Some(pending) = &self.participants[at].kept().pending else {
            return Input::Failed("nothing to upload".into());
        };
        let finish = pending.finish();
        self.traffic.messages_up += finish.encoded_len() as u64;
        self.traffic.uploaded += pending.body.len() as u64;
        let appended = self.federation.upload_append(id, pending.turn, 0, &pending.body);
        acknowledged(appended.and_then(|_| self.federation.upload_finish(self.now, id, finish)))
    }
}

/// A folder holds one run, and a run goes on where its clients do.
fn check_folder(folder: &Path, kept: Option<&Path>) -> Result<()> {
    let expected = match kept {
        _ if !folder.join("journal.sqlite").exists() => return Ok(()),
        Some(kept) if kept.exists() => return Ok(()),
        Some(_) => "one that holds no run yet, or a resumable one",
        None => "one that holds no run yet",
    };
    Err(Error::value("folder of the run", folder.display(), expected))
}

fn acknowledged(result: Result<wire::Ack, Refusal>) -> Input {
    match result {
        Ok(_) => Input::Delivered,
        Err(refusal) => Input::Refused(refusal.name().into()),
    }
}

#[cfg(test)]
mod tests;
