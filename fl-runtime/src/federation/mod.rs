//! The server of a run without its network: a [`Coordinator`] that remembers everything on disk.
//!
//! Each event that the coordinator takes is in the journal before anything else comes of it, and
//! before its sender is told. After a restart the events of the open round are handled again, and
//! the total is folded anew from the stored updates; integers add up to the same bits. So the
//! process may end at any moment: nothing that was acknowledged is lost, and nothing counts twice.
//!
//! Calls that read and write bodies ([`Incoming`]) and the making of a model ([`Work`]) are apart
//! from the federation, so that a server can run them outside of the lock around it.

mod audit;
mod clock;
mod incoming;
mod options;
mod presence;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use audit::{Audit, audit};
pub use incoming::{Incoming, Received};
pub use options::{Admission, Evaluator, Options};
pub use work::{Done, Work};

use crate::coordinator::{Coordinator, Effect, Event, Head, Progress, Upload};
use crate::layout::Layout;
use crate::plan::{Encoding, TaskSpec};
use crate::store::blobs::Blobs;
use crate::store::journal::{CommittedRound, CountedUpload, Journal};
use crate::update::{Codec, Format, Kind};
use crate::{
    ClientId, Digest, Error, Millis, Refusal, Result, RunId, RunPlan, Strategy, Turn, wire,
};
use clock::Clock;
use presence::Presence;
use work::{Sum, Tools};

/// A run on this machine.
pub struct Federation {
    plan: RunPlan,
    task: TaskSpec,
    layout: Layout,
    options: Options,
    journal: Journal,
    blobs: Blobs,
    coordinator: Coordinator,
    tools: Arc<Tools>,
    /// What the uploads of the open attempt add up to; unknown after a restart or a failure.
    total: Option<Sum>,
    /// Whether a [`Work`] is out.
    working: bool,
    presence: Presence,
    clock: Clock,
    /// When the coordinator began to wait for clients.
    gathering: Option<Millis>,
    version: u64,
    refusals: BTreeMap<&'static str, u64>,
    uploaded: u64,
}

/// What a run is doing, for those who watch.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// Name of the run.
    pub name: String,
    /// The run.
    pub run: RunId,
    /// The open round.
    pub round: u32,
    /// The attempt at it.
    pub attempt: u32,
    /// Rounds of the plan.
    pub rounds: u32,
    /// Name of the phase.
    pub phase: &'static str,
    /// Milliseconds until the phase ends, if it ends by itself.
    pub remaining: Option<u64>,
    /// The cohort, with how far each member is in this phase.
    pub cohort: Vec<(ClientId, Progress)>,
    /// Clients heard of lately.
    pub online: usize,
    /// Clients registered.
    pub enrolled: usize,
    /// Bytes of updates received since the process started.
    pub uploaded: u64,
    /// Bytes of all bodies on disk.
    pub stored: u64,
    /// Refused messages by reason, since the process started.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Round and score of the best model.
    pub best: Option<(u32, f64)>,
    /// Whether the run is over.
    pub finished: bool,
    /// Rises with every change.
    pub version: u64,
}

impl Federation {
    /// Opens the run in a folder, or starts it from the flat vector `initial`.
    ///
    /// # Errors
    /// [`Error::Value`] for a plan that makes no sense or is not the one that the run was started
    /// with, naming the field; [`Error::File`], [`Error::Journal`].
    pub fn open(folder: &Path, plan: &RunPlan, initial: &[f32], options: Options) -> Result<Self> {
        let layout = plan.check()?;
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let (durability, faults) = (options.durability, || options.faults.clone());
        let mut journal = Journal::open(&folder.join("journal.sqlite"), durability, faults())?;
        let blobs = Blobs::open(folder, durability, options.max_bytes, faults())?;
        let (run, first) = match journal.get("run")? {
            Some(run) => (check_run(&journal, plan, &run)?, false),
            None => (start(&mut journal, &blobs, plan, &layout, initial, &options)?, true),
        };
        let coordinator = load(&journal, plan, run)?;
        let strategy = plan.strategy.build(options.strategy.as_ref())?;
        let tools = Arc::new(Tools::new(plan, &layout, strategy, &options, blobs.clone())?);
        let clock = Clock::new(coordinator.now());
        let presence = Presence::new(journal.clients()?, options.presence);
        tracing::info!(
            run = %run, new = first, turn = %coordinator.turn(), phase = coordinator.phase(), "open"
        );
        let federation = Federation {
            task: plan.task(run)?,
            plan: plan.clone(),
            layout,
            options,
            journal,
            blobs,
            coordinator,
            tools,
            total: None,
            working: false,
            presence,
            clock,
            gathering: None,
            version: 1,
            refusals: BTreeMap::new(),
            uploaded: 0,
        };
        federation.sweep()?;
        Ok(federation)
    }

    /// What clients need to know of the run.
    pub fn task(&self) -> &TaskSpec {
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
    /// [`Refusal::NotAdmitted`]; [`Refusal::Storage`].
    pub fn enroll(
        &mut self,
        now: Millis,
        client: ClientId,
        token: Option<&str>,
    ) -> Result<(), Refusal> {
        if self.presence.knows(&client) {
            return Ok(());
        }
        if !self.options.admission.admits(&client, token) {
            return self.refuse(Refusal::NotAdmitted);
        }
        match self.journal.enroll(now, &client) {
            Ok(()) => self.presence.enroll(client),
            Err(error) => return self.refuse(stored(error)),
        }
        Ok(())
    }

    /// Whether a client is registered.
    pub fn is_enrolled(&self, client: &ClientId) -> bool {
        self.presence.knows(client)
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
        let now = self.clock.read(now);
        let samples = samples.min(self.plan.updates.max_samples);
        self.presence.seen(now, *client, samples);
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
        self.acknowledge(now, Event::Message { client: *client, message })
    }

    /// Where an upload goes, if one of this client would be taken; its body is received and
    /// checked outside of the federation.
    ///
    /// # Errors
    /// Why it would not be taken; [`Refusal::Repeated`] if it already was.
    pub fn incoming(&mut self, client: &ClientId, turn: Turn) -> Result<Incoming, Refusal> {
        self.known(client)?;
        if let Err(refusal) = self.coordinator.check_upload(client, turn, None) {
            return self.refuse(refusal);
        }
        let format = self.format();
        match Incoming::open(&self.blobs, turn, *client, format) {
            Ok(incoming) => Ok(incoming),
            Err(error) => self.refuse(stored(error)),
        }
    }

    /// Takes a received and checked body. `finish` must announce its digest.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn accept(
        &mut self,
        now: Millis,
        received: Received,
        finish: wire::Finish,
    ) -> Result<wire::Ack, Refusal> {
        let now = self.clock.read(now);
        let Received { incoming, digest } = received;
        let (turn, client) = (incoming.turn(), *incoming.client());
        if finish.digest != digest.0 {
            return self.refuse(Refusal::Hash);
        }
        let upload = Upload {
            digest,
            bytes: incoming.len(),
            samples: finish.samples,
            metrics: finish.metrics,
        };
        // Nothing is stored of an upload that would not be taken.
        match self.coordinator.check_upload(&client, turn, Some(&upload)) {
            Err(Refusal::Repeated) => return Ok(wire::Ack { repeated: true }),
            Err(refusal) => return self.refuse(refusal),
            Ok(()) => {}
        }
        if let Err(error) = self.blobs.accept(incoming.partial(), turn, &client) {
            return self.refuse(stored(error));
        }
        self.uploaded += upload.bytes;
        self.acknowledge(now, Event::Uploaded { client, turn, upload })
    }

    /// Bytes of an upload that the server has: where its client goes on.
    ///
    /// # Errors
    /// As [`Federation::incoming`].
    pub fn upload_offset(&mut self, client: &ClientId, turn: Turn) -> Result<u64, Refusal> {
        Ok(self.incoming(client, turn)?.len())
    }

    /// Takes a part of a body; returns how much of it the server has.
    ///
    /// # Errors
    /// As [`Incoming::append`].
    pub fn upload_append(
        &mut self,
        client: &ClientId,
        turn: Turn,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, Refusal> {
        let appended = self.incoming(client, turn)?.append(offset, bytes);
        appended.or_else(|refusal| self.refuse(refusal))
    }

    /// Checks a complete body and takes it.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn upload_finish(
        &mut self,
        now: Millis,
        client: &ClientId,
        finish: wire::Finish,
    ) -> Result<wire::Ack, Refusal> {
        let turn = Turn::new(finish.round, finish.attempt);
        let incoming = match self.incoming(client, turn) {
            Err(Refusal::Repeated) => return self.finish_again(client, turn, &finish),
            other => other?,
        };
        match incoming.finish(&finish.digest) {
            Ok(received) => self.accept(now, received, finish),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// An upload of this client is in already: is it the same?
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if it is another.
    pub fn finish_again(
        &mut self,
        client: &ClientId,
        turn: Turn,
        finish: &wire::Finish,
    ) -> Result<wire::Ack, Refusal> {
        let accepted = self.coordinator.accepted().find(|(other, _)| *other == client);
        let same = accepted.is_some_and(|(_, upload)| {
            upload.digest.0 == finish.digest[..]
                && upload.samples == finish.samples
                && upload.metrics == finish.metrics
        });
        if same && turn == self.coordinator.turn() {
            return Ok(wire::Ack { repeated: true });
        }
        self.refuse(Refusal::Conflict("upload"))
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
        self.tools.format(&self.coordinator)
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
            None => self.journal.append(&journaled),
        };
        if let Err(error) = stored {
            // What isn't stored didn't happen.
            self.reload();
            return Err(self::stored(error));
        }
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
            Err(error) => tracing::error!(%error, "reading the journal again"),
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Fold { client, weight } => {
                // An unknown total is folded as a whole once it is needed.
                let Some(mut total) = self.total.take() else { return };
                match self.tools.fold(&self.coordinator, &mut total, &client, weight) {
                    Ok(()) => self.total = Some(total),
                    Err(error) => tracing::warn!(%error, %client, "folding an update"),
                }
            }
            Effect::Clear => self.begin(),
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

    /// Starts the round if enough clients are there.
    fn gather(&mut self, now: Millis) -> Result<(), Refusal> {
        if !self.coordinator.wants_cohort() {
            return Ok(());
        }
        let since = *self.gathering.get_or_insert(now);
        let online = self.presence.online(now);
        let cohort = &self.plan.cohort;
        let waited = now.since(since) >= cohort.gather;
        let enough = if waited { cohort.minimum } else { cohort.asked() };
        if online.len() < enough as usize {
            return Ok(());
        }
        self.apply(now, Event::Start { online })?;
        self.total = Some(self.tools.empty(&self.coordinator));
        Ok(())
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
    pub fn work(&mut self) -> Option<Work> {
        if self.working || !self.coordinator.combining() {
            return None;
        }
        self.working = true;
        Some(Work::new(self.tools.clone(), &self.coordinator, self.total.take()))
    }

    /// Takes the model that was made.
    ///
    /// # Errors
    /// Why none was made, or why it can't be stored; it will be made again.
    pub fn complete(&mut self, now: Millis, done: Result<Done>) -> Result<()> {
        self.working = false;
        let Done { turn, head } = done?;
        let now = self.clock.read(now);
        if turn == self.coordinator.turn() {
            self.apply(now, Event::Aggregated(head))?;
        }
        Ok(())
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
        self.tools.model(digest)
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

    /// What the run is doing.
    pub fn status(&self) -> Status {
        let coordinator = &self.coordinator;
        let now = self.clock.now();
        Status {
            name: self.plan.name.clone(),
            run: self.task.run,
            round: coordinator.turn().round,
            attempt: coordinator.turn().attempt,
            rounds: self.plan.rounds,
            phase: coordinator.phase(),
            remaining: coordinator.deadline().map(|deadline| deadline.since(now)),
            cohort: coordinator.cohort(),
            online: self.presence.online(now).len(),
            enrolled: self.presence.enrolled(),
            uploaded: self.uploaded,
            stored: self.blobs.used(),
            refusals: self.refusals.clone(),
            best: coordinator.best().map(|best| (best.round, best.score)),
            finished: coordinator.finished(),
            version: self.version,
        }
    }
}

fn stored(error: Error) -> Refusal {
    Refusal::Storage(error.to_string())
}

/// What a run was started with, in the journal.
fn start(
    journal: &mut Journal,
    blobs: &Blobs,
    plan: &RunPlan,
    layout: &Layout,
    initial: &[f32],
    options: &Options,
) -> Result<RunId> {
    if initial.len() != layout.elements() {
        let expected = format!("{} values", layout.elements());
        return Err(Error::value("initial model", format!("{} values", initial.len()), expected));
    }
    if let Some(at) = initial.iter().position(|x| !x.is_finite()) {
        let name = format!("element {at} of the initial model");
        return Err(Error::value(name, initial[at], "a finite number"));
    }
    let run = match options.run {
        Some(run) => run,
        None => RunId::draw()?,
    };
    let model = blobs.put_model(&Codec::full(initial))?;
    let scales = match &plan.secure {
        Some(secure) if plan.updates.uplink == Encoding::Ternary => {
            vec![secure.first_scale; layout.tensors()]
        }
        _ => Vec::new(),
    };
    let coordinator = Coordinator::new(plan.clone(), run, Head::initial(model, scales))?;
    let json = serde_json::to_vec(plan).unwrap_or_default();
    journal.set(&[
        ("run", &run.0),
        ("plan", &json),
        ("initial", &model.0),
        ("snapshot", &coordinator.snapshot()),
    ])?;
    Ok(run)
}

/// Whether the run in the journal has this plan.
fn check_run(journal: &Journal, plan: &RunPlan, run: &[u8]) -> Result<RunId> {
    let broken = || Error::value("journal", "incomplete", "the one of a run");
    let json = journal.get("plan")?.ok_or_else(broken)?;
    let started: RunPlan = serde_json::from_slice(&json).map_err(|_| broken())?;
    if let Some(difference) = started.difference(plan) {
        let expected = "the plan that the run was started with";
        return Err(Error::value("plan", difference, expected));
    }
    RunId::from_slice(run).ok_or_else(broken)
}

/// The coordinator as the journal has it.
fn load(journal: &Journal, plan: &RunPlan, run: RunId) -> Result<Coordinator> {
    let snapshot = journal.get("snapshot")?.unwrap_or_default();
    let mut coordinator = Coordinator::restore(plan.clone(), run, &snapshot)?;
    for journaled in journal.events()? {
        let now = Millis(journaled.now);
        // The effects are found in the state: what is to be folded and made.
        coordinator.handle(now, Event::from_wire(journaled)?)?;
    }
    Ok(coordinator)
}

#[cfg(test)]
mod tests;
