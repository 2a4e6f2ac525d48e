//! The server of a run without its network: a [`Coordinator`] that remembers everything on disk.
//!
//! Each event that the coordinator takes is in the journal before anything else comes of it, and
//! before its sender is told. After a restart the events of the open round are handled again, and
//! the total is added up anew from the stored updates; integers add up to the same bits. So the
//! process may end at any moment: nothing that was acknowledged is lost, and nothing counts twice.
//!
//! Calls that read and write bodies ([`Incoming`]) and the making of a model ([`Aggregation`]) are separate
//! from the federation, so that a server can run them outside of the lock around it.
//!
//! ```
//! use tern_protocol::layout::{ModelKind, TensorSpec};
//! use tern_protocol::{ClientId, Digest, Millis, RunPlan, Turn, update::Codec, wire};
//! use tern_server::federation::{Federation, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let weights = TensorSpec { name: "w".into(), shape: vec![8, 8] };
//! let mut plan = RunPlan::new("weights", ModelKind::Tensors(vec![weights]), 1);
//! plan.cohort.size = 1;
//! let mut run = Federation::open(folder.path(), &plan, &[0.0; 64], Options::default())?;
//! let (client, now) = (ClientId([1; 32]), Millis(1));
//! run.enroll(now, client, None)?;
//! run.poll(now, &client, 20)?;
//! // The client was asked for an update, and sends it.
//! let body = Codec::full(&[0.5; 64]);
//! run.upload_append(&client, Turn::new(1, 1), 0, &body)?;
//! let (samples, digest) = (20, Digest::of(&body).0.to_vec());
//! let finish = wire::Finish { round: 1, attempt: 1, digest, samples, ..Default::default() };
//! run.upload_finish(now, &client, finish)?;
//! // The model of the round is made.
//! run.tick(now)?;
//! assert_eq!(run.rounds(0)?.len(), 1);
//! assert_eq!(run.model(&run.coordinator().head().model)?, [0.5; 64]);
//! # Ok(())
//! # }
//! ```

mod aggregation;
mod audit;
mod clock;
mod damage;
mod failures;
mod gather;
mod incoming;
mod options;
mod presence;
mod repair;
mod replay;
mod start;
mod status;
mod uploads;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use aggregation::{Aggregated, Aggregation};
pub use audit::{Audit, audit};
pub use clock::Clock;
pub use failures::{Failed, Missing};
pub use incoming::{Incoming, Received};
pub use options::{Admission, Evaluator, Options, Token};
pub use repair::Repair;
pub use status::Status;

use tern_host::folder::FolderLock;
use tern_protocol::coordinator::{Coordinator, Effect, Event};
use tern_protocol::layout::Layout;
use tern_protocol::plan::Task;
use tern_protocol::update::Format;
use tern_protocol::wire::message::Body;
use tern_protocol::{ClientId, Digest, Error, Millis, Refusal, Result, RunPlan, Turn, wire};

use crate::blobs::Blobs;
use crate::journal::{CommittedRound, CountedUpload, Journal};
use aggregation::{Context, Made, Sum};
use damage::Damage;
use failures::Failures;
use presence::Presence;
use start::{check_kept, check_run, load, start};

/// A run on this machine.
pub struct Federation {
    plan: RunPlan,
    task: Task,
    layout: Layout,
    options: Options,
    journal: Journal,
    blobs: Blobs,
    coordinator: Coordinator,
    context: Arc<Context>,
    /// What the uploads of the open attempt add up to; unknown after a restart or a failure.
    total: Option<Sum>,
    /// Whether an [`Aggregation`] is out.
    working: bool,
    presence: Presence,
    /// Clients that enrolled with a token, by its digest.
    used: BTreeMap<Digest, u32>,
    clock: Clock,
    /// When the coordinator began to wait for clients.
    gathering: Option<Millis>,
    /// Clients enrolled when it was said last that they are few.
    told: Option<usize>,
    version: u64,
    refusals: BTreeMap<&'static str, u64>,
    failed: Failures,
    damage: Damage,
    uploaded: u64,
    _folder: FolderLock,
}

impl Federation {
    /// Opens the run in a folder, or starts it from the flat vector `initial`. A plan with more
    /// rounds than before goes on where the run was, or was over.
    ///
    /// # Errors
    /// [`Error::Value`] for a plan that makes no sense or differs from the one that the run was
    /// started with in more than that, naming the field; [`Error::File`], for a folder that is in use, too;
    /// [`Error::Journal`]. A journal or a model that is damaged or missing is named, and nothing is
    /// changed then: `tern repair` says what can be had back.
    pub fn open(folder: &Path, plan: &RunPlan, initial: &[f32], options: Options) -> Result<Self> {
        let layout = plan.check()?;
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let lock = FolderLock::take(folder)?;
        let (durability, faults) = (options.durability, || options.faults.clone());
        let mut journal = Journal::open(folder, durability, faults())?;
        let blobs = Blobs::open(folder, durability, options.max_bytes, faults())?;
        let (run, first) = match journal.get("run")? {
            Some(run) => (check_run(&mut journal, plan, &run)?, false),
            None => (start(&mut journal, &blobs, plan, &layout, initial, &options)?, true),
        };
        let coordinator = load(&journal, plan, run)?;
        let strategy = plan.strategy.build(options.strategy.as_ref())?;
        let context = Arc::new(Context::new(plan, &layout, strategy, &options, blobs.clone())?);
        check_kept(&context, &blobs, &coordinator, initial)?;
        let clock = Clock::new(coordinator.now());
        let mut clients = journal.clients()?;
        clients.retain(|client| options.keeps(client));
        let used = journal.tokens()?;
        let presence = Presence::new(clients, options.presence_ms);
        tracing::info!(
            run = %run, new = first, turn = %coordinator.turn(), phase = coordinator.phase(), "open"
        );
        let mut federation = Federation {
            task: plan.task(run)?.into(),
            plan: plan.clone(),
            layout,
            options,
            journal,
            blobs,
            coordinator,
            context,
            total: None,
            working: false,
            presence,
            used,
            clock,
            gathering: None,
            told: None,
            version: 1,
            refusals: BTreeMap::new(),
            failed: Failures::default(),
            damage: Damage::default(),
            uploaded: 0,
            _folder: lock,
        };
        federation.recount()?;
        federation.sweep()?;
        Ok(federation)
    }

    /// What clients need to know of the run.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The plan.
    pub fn plan(&self) -> &RunPlan {
        &self.plan
    }

    /// The layout of its model.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Registers a client, if the operator admits it.
    ///
    /// # Errors
    /// [`Refusal::NotAdmitted`], [`Refusal::TokenUsed`], [`Refusal::Full`]; [`Refusal::Storage`].
    pub fn enroll(
        &mut self,
        now: Millis,
        client: ClientId,
        token: Option<&str>,
    ) -> Result<(), Refusal> {
        if self.presence.knows(&client) {
            return Ok(());
        }
        let token = match self.options.admits(&client, token, &self.used) {
            Ok(token) => token,
            Err(refusal) => return self.refuse(refusal),
        };
        let enrolled = self.presence.enrolled().len();
        if enrolled >= self.options.max_clients {
            return self.refuse(Refusal::Full(enrolled));
        }
        match self.journal.enroll(now, &client, token.as_ref()) {
            Ok(()) => self.presence.enroll(client),
            Err(error) => return self.refuse(stored(error)),
        }
        if let Some(token) = token {
            *self.used.entry(token).or_default() += 1;
        }
        Ok(())
    }

    /// Whether a client is registered.
    pub fn is_enrolled(&self, client: &ClientId) -> bool {
        self.presence.knows(client)
    }

    /// Clients that are registered.
    #[cfg(feature = "http")]
    pub(crate) fn enrolled(&self) -> impl Iterator<Item = &ClientId> {
        self.presence.enrolled()
    }

    /// A registered client is there, and asks for nothing yet.
    pub(crate) fn greet(&mut self, now: Millis, client: ClientId, samples: u32) {
        let now = self.clock.read(now);
        self.presence.seen(now, client, samples.min(self.plan.updates.max_samples));
    }

    /// A client is there; what should it do?
    ///
    /// # Errors
    /// [`Refusal::Unknown`]; [`Refusal::Storage`] if what follows can't be stored.
    pub fn poll(
        &mut self,
        now: Millis,
        client: &ClientId,
        samples: u32,
    ) -> Result<wire::Instruction, Refusal> {
        self.known(client)?;
        self.greet(now, *client, samples);
        let now = self.clock.read(now);
        self.gather(now)?;
        let mut instruction = self.coordinator.instruction(client);
        instruction.version = self.version;
        instruction.remaining = self.coordinator.deadline().map_or(0, |end| end.since(now).max(1));
        Ok(instruction)
    }

    /// Takes a message.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn message(
        &mut self,
        now: Millis,
        client: &ClientId,
        message: wire::Message,
    ) -> Result<wire::Ack, Refusal> {
        self.known(client)?;
        let now = self.clock.read(now);
        if let Some(Body::Declined(wire::Declined { reason, .. })) = &message.body {
            // By Debug, since it is whatever the client wrote.
            let (round, attempt) = (message.round, message.attempt);
            tracing::warn!(%client, round, attempt, ?reason, "declined");
            self.failed.declined(*client, reason);
        }
        self.acknowledge(now, Event::Message { client: *client, message })
    }

    /// Counts a refusal that was made outside of the federation, and gives it back.
    ///
    /// # Errors
    /// The refusal.
    pub fn refuse<T>(&mut self, refusal: Refusal) -> Result<T, Refusal> {
        *self.refusals.entry(refusal.name()).or_default() += 1;
        tracing::debug!(name = refusal.name(), %refusal, "refused");
        Err(refusal)
    }

    fn known(&mut self, client: &ClientId) -> Result<(), Refusal> {
        match self.presence.knows(client) {
            true => Ok(()),
            false => self.refuse(Refusal::Unknown(*client)),
        }
    }

    /// What bodies of the open attempt look like.
    fn format(&self) -> Format {
        self.context.format(&self.coordinator)
    }

    fn acknowledge(&mut self, now: Millis, event: Event) -> Result<wire::Ack, Refusal> {
        match self.apply(now, event) {
            Ok(()) => Ok(wire::Ack { repeated: false }),
            Err(Refusal::Repeated) => Ok(wire::Ack { repeated: true }),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Handles an event, stores it, and then does what it asks for.
    fn apply(&mut self, now: Millis, event: Event) -> Result<(), Refusal> {
        let journaled = event.to_wire(now.max(self.coordinator.now()).0);
        let effects = self.coordinator.handle(now, event)?;
        let record = effects.iter().find_map(|effect| match effect {
            Effect::Committed(record) => Some(record),
            _ => None,
        });
        let stored = match record {
            Some(record) => {
                let snapshot = self.coordinator.snapshot();
                self.journal.commit(self.coordinator.now(), record, &snapshot)
            }
            // All that a failed attempt leaves is its number, which the snapshot has.
            None if matches!(effects.first(), Some(Effect::Failed(_))) => {
                self.journal.repeat(&self.coordinator.snapshot())
            }
            None => self.journal.append(&journaled),
        };
        if let Err(error) = stored {
            // An event takes effect only once it is journaled.
            self.damage.found(&error);
            self.reload();
            return Err(self::stored(error));
        }
        self.damage.mended();
        self.version += 1;
        for effect in effects {
            self.perform(effect);
        }
        Ok(())
    }

    fn reload(&mut self) {
        self.total = None;
        match load(&self.journal, &self.plan, self.task.run) {
            Ok(coordinator) => self.coordinator = coordinator,
            // Without its journal a run can't go on, but what it has stays whole.
            Err(error) => {
                self.damage.found(&error);
                tracing::error!(%error, "reading the journal again");
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Add { client, .. } => self.add(&client),
            Effect::Failed(failed) => {
                self.failed.add(failed);
                self.begin();
            }
            Effect::Aggregate => {}
            Effect::Committed(record) => {
                let (turn, updates) = (record.turn, record.uploads.len());
                tracing::info!(round = turn.round, attempt = turn.attempt, updates, "committed");
                self.begin();
            }
            Effect::Finished => tracing::info!("finished"),
        }
    }

    /// A new attempt: nothing in the total, and nothing kept of the last.
    fn begin(&mut self) {
        self.total = None;
        self.gathering = None;
        self.failed.begin();
        if let Err(error) = self.sweep() {
            tracing::warn!(%error, "removing what is no longer needed");
        }
    }

    fn sweep(&self) -> Result<()> {
        self.blobs.sweep_models(&self.coordinator.kept())?;
        let open = self.coordinator.turn();
        let keep = |turn: Turn| {
            self.options.keep_uploads
                && self.journal.turn(turn.round).is_ok_and(|made| made == Some(turn))
        };
        self.blobs.sweep_uploads(open, keep)
    }

    /// Lets time pass: deadlines, cohorts, and the making of a model.
    ///
    /// # Errors
    /// If a model can't be made or something can't be stored; the next call tries again.
    pub fn tick(&mut self, now: Millis) -> Result<()> {
        self.advance(now)?;
        if let Some(work) = self.work() {
            let done = work.run();
            self.complete(now, done)?;
        }
        Ok(())
    }

    /// Deadlines and cohorts alone.
    ///
    /// # Errors
    /// If something can't be stored; the next call tries again.
    pub fn advance(&mut self, now: Millis) -> Result<()> {
        let now = self.clock.read(now);
        if self.coordinator.deadline().is_some_and(|deadline| deadline <= now) {
            self.apply(now, Event::Tick)?;
        }
        self.gather(now)?;
        Ok(())
    }

    /// The making of a model, if it is due: to be run, outside of a lock if need be, and then
    /// given to [`Federation::complete`].
    pub fn work(&mut self) -> Option<Aggregation> {
        if self.working || !self.coordinator.combining() {
            return None;
        }
        self.working = true;
        Some(Aggregation::new(self.context.clone(), &self.coordinator, self.total.take()))
    }

    /// Takes the model that was made.
    ///
    /// # Errors
    /// Why none was made, or why it can't be stored; it will be made again.
    pub fn complete(&mut self, now: Millis, done: Result<Aggregated>) -> Result<()> {
        self.working = false;
        let Aggregated { turn, made } = done.inspect_err(|error| self.damage.found(error))?;
        let now = self.clock.read(now);
        if turn != self.coordinator.turn() {
            return Ok(());
        }
        match made {
            Made::Head(head) => Ok(self.apply(now, Event::Aggregated(head))?),
            Made::Lost(clients) => self.lose(now, turn, &clients),
        }
    }

    /// Where a model or a difference of models is that clients may fetch.
    ///
    /// # Errors
    /// [`Error::File`] if there is none.
    pub fn blob(&self, digest: &Digest) -> Result<PathBuf> {
        let path = self.blobs.model_path(digest);
        match self.coordinator.kept().contains(digest) && path.exists() {
            true => Ok(path),
            false => Err(Error::file(&path, "no such model")),
        }
    }

    /// A stored model as a flat vector.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn model(&self, digest: &Digest) -> Result<Vec<f32>> {
        self.context.model(digest)
    }

    /// Whether all of the journal is known in two places, so that any of it is missed if it is lost.
    pub fn is_settled(&self) -> bool {
        self.journal.is_settled()
    }

    /// The coordinator, to look at.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Rises with every change of what [`Federation::poll`] answers.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Committed rounds after round `after`.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>> {
        self.journal.rounds(after)
    }

    /// Updates that a committed round counted.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn counted(&self, round: u32) -> Result<Vec<CountedUpload>> {
        self.journal.uploads(round)
    }
}

fn stored(error: Error) -> Refusal {
    Refusal::Storage(error.to_string())
}

#[cfg(test)]
mod tests;
