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
mod collected;
mod damage;
mod failures;
mod fold;
mod gather;
mod incoming;
mod open;
mod options;
mod presence;
mod repair;
mod replay;
mod start;
mod status;
mod uploads;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use aggregation::{Aggregated, Aggregation};
pub use audit::{Audit, audit, audit_of};
pub use clock::Clock;
pub use failures::{Failed, Missing};
pub use fold::{Counted, Folding, Sum};
pub use incoming::{Incoming, Received};
pub use options::{Admission, Evaluator, Options, Token};
pub use presence::Processes;
pub use repair::Repair;
pub use status::Status;

use tern_protocol::coordinator::{Coordinator, Effect, Event};
use tern_protocol::layout::Layout;
use tern_protocol::plan::Task;
use tern_protocol::wire::message::Body;
use tern_protocol::{ClientId, Digest, Error, Millis, Refusal, Result, RunPlan, Turn, wire};

use crate::journal::{CommittedRound, CountedUpload};
use crate::storage::{Bodies, Ledger};
use aggregation::{Context, Made};
use damage::Damage;
use failures::Failures;
use presence::Presence;
use start::load;

/// A run, and what it is kept in.
pub struct Federation {
    plan: RunPlan,
    task: Task,
    layout: Layout,
    options: Options,
    ledger: Box<dyn Ledger>,
    bodies: Arc<dyn Bodies>,
    coordinator: Coordinator,
    /// Whether the coordinator handled what the ledger may not have, and couldn't be read anew.
    ahead: bool,
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
    /// What keeps others away from the storage.
    _guard: Box<dyn Any + Send>,
}

impl Federation {
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
        match self.ledger.enroll(now, &client, token.as_ref()) {
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
    pub fn greet(&mut self, now: Millis, client: ClientId, samples: u32) {
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
        self.go_back()?;
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

    fn acknowledge(&mut self, now: Millis, event: Event) -> Result<wire::Ack, Refusal> {
        match self.apply(now, event) {
            Ok(()) => Ok(wire::Ack { repeated: false }),
            Err(Refusal::Repeated) => Ok(wire::Ack { repeated: true }),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Handles an event, stores it, and then does what it asks for.
    fn apply(&mut self, now: Millis, event: Event) -> Result<(), Refusal> {
        self.go_back()?;
        let journaled = event.to_wire(now.max(self.coordinator.now()).0);
        let effects = self.coordinator.handle(now, event)?;
        let record = effects.iter().find_map(|effect| match effect {
            Effect::Committed(record) => Some(record),
            _ => None,
        });
        let stored = match record {
            Some(record) => self.ledger.commit(record, &self.coordinator),
            // All that a failed attempt leaves is its number, which the snapshot has.
            None if matches!(effects.first(), Some(Effect::Failed(_))) => {
                self.ledger.repeat(&self.coordinator)
            }
            None => self.ledger.append(&journaled, &self.coordinator),
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
        let loaded = load(&*self.ledger, &self.plan, self.task.run);
        self.ahead = loaded.is_err();
        match loaded {
            Ok(coordinator) => self.coordinator = coordinator,
            // Without its journal a run can't go on, but what it has stays whole.
            Err(error) => {
                self.damage.found(&error);
                tracing::error!(%error, "reading the journal again");
            }
        }
    }

    /// Goes back to what the ledger has, where the coordinator may be ahead of it: another event
    /// would be written after one that isn't there.
    fn go_back(&mut self) -> Result<(), Refusal> {
        if self.ahead {
            self.reload();
        }
        match self.ahead {
            true => Err(Refusal::Storage("the journal can't be read, try again".into())),
            false => Ok(()),
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
            Effect::Finished => {
                tracing::info!("finished");
                self.look_for_best();
            }
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
        let settled = |turn: Turn| {
            self.options.keep_uploads
                && self.ledger.turn(turn.round).is_ok_and(|made| made == Some(turn))
        };
        self.bodies.sweep(&self.coordinator.kept(), self.coordinator.turn(), &settled)
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
        self.go_back()?;
        let now = self.clock.read(now);
        if self.is_due(now) && !self.collects_elsewhere() {
            self.apply(now, Event::Tick)?;
        }
        self.gather(now)?;
        Ok(())
    }

    /// The making of a model, if it is due: to be run, outside of a lock if need be, and then
    /// given to [`Federation::complete`].
    pub fn work(&mut self) -> Option<Aggregation> {
        match self.options.fleet {
            true => None,
            false => self.work_from(None),
        }
    }

    fn work_from(&mut self, sum: Option<Sum>) -> Option<Aggregation> {
        if self.working || !self.coordinator.combining() {
            return None;
        }
        self.working = true;
        let total = sum.or_else(|| self.total.take());
        Some(Aggregation::new(self.context.clone(), &self.coordinator, total))
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

    /// A model or a difference of models that clients may fetch.
    ///
    /// # Errors
    /// [`Error::File`] if there is none.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        match self.coordinator.kept().contains(digest) {
            true => self.bodies.read(digest),
            false => Err(Error::file(&self.bodies.name(digest), "no such model")),
        }
    }

    /// Where its models and updates are.
    pub fn bodies(&self) -> &Arc<dyn Bodies> {
        &self.bodies
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
        self.ledger.is_settled()
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
        self.ledger.rounds(after)
    }

    /// Updates that a committed round counted.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn counted(&self, round: u32) -> Result<Vec<CountedUpload>> {
        self.ledger.counted(round)
    }
}

fn stored(error: Error) -> Refusal {
    Refusal::Storage(error.to_string())
}

#[cfg(test)]
mod tests;
