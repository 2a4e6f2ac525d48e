//! A client over the network: what an app links.
//!
//! ```no_run
//! use tern_client::{Client, Options};
//! use tern_engine::{Device, RowData};
//! use tern_protocol::trainer::{EngineTrainer, LocalData};
//!
//! # async fn take_part(features: Vec<f32>, labels: Vec<u32>) -> tern_protocol::Result<()> {
//! // The app's own data: it stays on this device.
//! let device = Device::from_env()?;
//! let data = RowData::upload(&device, &features, 64, &labels, 10)?;
//! let trainer = EngineTrainer::new(&device, LocalData::Rows(data));
//!
//! let options = Options::new("https://federation.example:8443", "state/federation");
//! let client = Client::new(options.token("what the operator gave out".to_string()))?;
//! // Until the run is over or the app says stop; a restart goes on from the folder.
//! let outcome = client.run(trainer, &device, std::future::pending()).await?;
//! println!("{outcome:?}");
//! # Ok(())
//! # }
//! ```
//!
//! The client polls the server, does what [`Participant`] says, and keeps what must survive in
//! its folder. It goes on through restarts of either side and losses of the network: it waits
//! ([`Backoff`]) and tries again, uploads and downloads go on where they broke off.

mod backoff;
mod conditions;
mod http;
mod options;
#[cfg_attr(target_family = "wasm", path = "browser.rs")]
#[cfg_attr(not(target_family = "wasm"), path = "native.rs")]
mod platform;
#[cfg(test)]
mod tests;
mod transfer;
mod work;

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use tern_engine::{Device, Interrupt};
use tern_protocol::identity::Identity;
use tern_protocol::layout::Layout;
use tern_protocol::participant::{Action, Input, Participant, declined};
use tern_protocol::plan::{Task, UpdateKind};
use tern_protocol::trainer::Job;
#[cfg(not(target_family = "wasm"))]
use tern_protocol::trainer::Trainer;
use tern_protocol::update::Codec;
use tern_protocol::{Digest, Error, Result, TaskSpec, Turn, wire};

pub use backoff::Backoff;
pub use conditions::{Conditions, DeviceState};
pub use http::{CallError, Http, Part};
pub use options::{Event, Options};
#[cfg(target_family = "wasm")]
pub use platform::{forget, stored};

use platform::{Folder, Store, sleep};
use transfer::Download;
use work::Work;

/// Longest wait of a poll, which the server may shorten.
const POLL: Duration = Duration::from_secs(25);
/// Time between looks at conditions that don't hold.
const LOOK: Duration = Duration::from_secs(15);

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The run is over; its best model is in this file.
    Finished(PathBuf),
    /// The host program asked to stop.
    Stopped,
}

/// A client of a server.
#[derive(Debug)]
pub struct Client {
    http: Http,
    options: Options,
    /// Whether the server ever answered as one.
    met: bool,
    /// What [`Client::task`] has learned and no run has begun with.
    task: Option<Task>,
    /// Tells the server's operator of copies of the folder: see [`wire::Poll`].
    process: u64,
    folder: Folder,
}

/// One run that the client takes part in.
struct Session<T> {
    participant: Participant,
    store: Store,
    layout: Layout,
    trainer: T,
    download: Option<Download>,
    /// Version of the last instruction.
    version: u64,
    /// Whether something failed of what followed from it.
    failed: bool,
}

/// Why a session ends.
enum End {
    /// The run is over; its best model is in this file.
    Finished(PathBuf),
    /// The server doesn't know this client, or has another run: enroll again.
    Again,
}

impl Client {
    /// A client with the key of its folder; a new key where there is none.
    ///
    /// # Errors
    /// [`Error::File`] for the folder, one that is in use, too; [`Error::Value`] for a key or
    /// certificates that can't be used.
    #[cfg(not(target_family = "wasm"))]
    pub fn new(options: Options) -> Result<Self> {
        let (folder, identity) = Folder::open(&options.folder)?;
        Client::with(options, folder, identity)
    }

    /// A client with the key of its folder in the origin's storage; a new key where there is none.
    ///
    /// # Errors
    /// [`Error::File`] for the folder, one that another tab has, too; [`Error::Value`] for a key
    /// that can't be used.
    #[cfg(target_family = "wasm")]
    pub async fn open(options: Options) -> Result<Self> {
        let (folder, identity) = Folder::open(&options.folder).await?;
        Client::with(options, folder, identity)
    }

    fn with(options: Options, folder: Folder, identity: Identity) -> Result<Self> {
        let http = Http::new(&options.server, options.authority.as_deref(), identity)
            .map_err(|error| Error::value("server", error, "one to connect to"))?;
        // Zero would say nothing.
        let process = getrandom::u64()?.max(1);
        Ok(Client { http, options, met: false, task: None, process, folder })
    }

    /// Who this is: the public key.
    pub fn identity(&self) -> &Identity {
        self.http.identity()
    }

    /// Registers, and says what the run asks for: by which [`TaskSpec::schema`] tables are to be
    /// read, say. It waits for the server.
    ///
    /// # Errors
    /// As of [`Client::run`] before the first round.
    pub async fn task(&mut self) -> Result<TaskSpec> {
        let task = self.enroll().await?;
        let spec = TaskSpec::clone(&task);
        self.task = Some(task);
        Ok(spec)
    }

    /// Takes part until the run is over or `stop` is there. `device` encodes updates. A trainer
    /// that is at work then is interrupted ([`Trainer::interrupt`]) and not waited for; it ends, on
    /// a blocking thread of the event loop, after the step that it is at.
    ///
    /// # Errors
    /// [`Error::Value`] if the server doesn't take this client, or another process has its key, from
    /// a copy of its folder; [`Error::File`] if its state
    /// can't be kept; what the participant finds wrong with the task, or less in it than
    /// [`Options::required_security`]. Failures of the network,
    /// and those of the trainer, are no errors: it goes on.
    #[cfg(not(target_family = "wasm"))]
    pub async fn run<T: Trainer + Send + 'static>(
        self,
        trainer: T,
        device: &Device,
        stop: impl Future<Output = ()>,
    ) -> Result<Outcome> {
        self.run_until(platform::OffLoop::new(trainer), device, stop).await
    }

    /// Takes part until the run is over or `stop` is there; the trainer is interrupted then.
    /// `device` encodes updates: the Cpu device, which may be waited for.
    ///
    /// # Errors
    /// [`Error::Value`] if the server doesn't take this client, or another process has its key, from
    /// a copy of its folder; [`Error::File`] if its state can't be kept; what the participant finds
    /// wrong with the task, or less in it than [`Options::required_security`]. Failures of the
    /// network, and those of the trainer, are no errors: it goes on.
    #[cfg(target_family = "wasm")]
    pub async fn run(
        self,
        trainer: tern_protocol::trainer::EngineTrainer,
        device: &Device,
        stop: impl Future<Output = ()>,
    ) -> Result<Outcome> {
        self.run_until(trainer, device, stop).await
    }

    async fn run_until(
        mut self,
        trainer: impl Work,
        device: &Device,
        stop: impl Future<Output = ()>,
    ) -> Result<Outcome> {
        let interrupt = trainer.interrupt();
        tokio::select! {
            outcome = self.take_part(trainer, device) => outcome,
            () = stop => {
                interrupt.inspect(Interrupt::set);
                Ok(Outcome::Stopped)
            }
        }
    }

    async fn take_part(&mut self, mut trainer: impl Work, device: &Device) -> Result<Outcome> {
        loop {
            let task = match self.task.take() {
                Some(task) => task,
                None => self.enroll().await?,
            };
            tracing::info!(run = %task.run, name = task.name, client = %self.identity().client(), "enrolled");
            self.tell(&Event::Enrolled(&task));
            let mut session = self.session(task, device, trainer).await?;
            match self.work(&mut session).await? {
                End::Again => trainer = session.trainer,
                End::Finished(path) => {
                    tracing::info!(model = %path.display(), "the run is over");
                    return Ok(Outcome::Finished(path));
                }
            }
        }
    }

    /// Registers, and learns the task.
    async fn enroll(&mut self) -> Result<Task> {
        let token = self.options.token.clone().unwrap_or_default();
        loop {
            let answer = match self.http.enroll(&token).await {
                Ok(()) => self.http.post("/v1/run", Vec::new(), Duration::ZERO).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(wire::Run { task }) => {
                    self.met = true;
                    self.options.backoff.reset();
                    return Task::read(&task);
                }
                Err(error) => self.pause(error).await?,
            }
        }
    }

    async fn session<T>(&self, task: Task, device: &Device, trainer: T) -> Result<Session<T>> {
        let store = self.folder.store(&task.run).await?;
        let kept = store.load()?;
        let layout = Layout::of(&task.model)?;
        let mut participant = Participant::new(self.identity().signing_key(), task, device, kept)?;
        if let Some(required) = self.options.required_security {
            participant = participant.requiring(required)?;
        }
        Ok(Session {
            participant,
            store,
            layout,
            trainer,
            download: None,
            version: 0,
            failed: false,
        })
    }

    /// Does what the server and the participant say, until the session ends.
    async fn work(&mut self, session: &mut Session<impl Work>) -> Result<End> {
        loop {
            if !self.options.conditions.hold() {
                tracing::debug!(conditions = ?self.options.conditions, "waiting for");
                sleep(LOOK).await;
                continue;
            }
            let samples = session.trainer.samples();
            let wait = POLL.as_millis() as u32;
            let (version, process) = (session.version, self.process);
            let poll = wire::Poll { samples, version, wait, process };
            let instruction: wire::Instruction = match self.http.call("/v1/poll", &poll, POLL).await
            {
                Ok(instruction) => instruction,
                Err(error) if matches!(error.name(), Some("unknown" | "run")) => {
                    return Ok(End::Again);
                }
                Err(error) => {
                    session.version = 0;
                    self.pause(error).await?;
                    continue;
                }
            };
            session.version = instruction.version;
            session.participant.set_samples(samples);
            session.failed = false;
            if let Some(end) = self.follow(session, Input::Instruction(instruction)).await? {
                return Ok(end);
            }
            // What fails is asked for again by the next instruction, and may fail again.
            if !session.failed {
                self.options.backoff.reset();
            }
        }
    }

    /// Does the actions that follow from an input, and those that follow from these.
    async fn follow(
        &mut self,
        session: &mut Session<impl Work>,
        input: Input,
    ) -> Result<Option<End>> {
        let mut actions: VecDeque<Action> = session.participant.handle(input)?.into();
        while let Some(action) = actions.pop_front() {
            let input = match action {
                Action::Wait => continue,
                Action::Stop(best) => match self.keep_best(session, best).await? {
                    Some(path) => return Ok(Some(End::Finished(path))),
                    None => continue,
                },
                Action::Save => {
                    session.store.save(session.participant.kept()).await?;
                    continue;
                }
                Action::Fetch(digest) => self.fetch(session, digest).await,
                Action::Train(job) => self.train(session, job).await?,
                Action::Evaluate(job) => self.evaluate(session, job).await,
                Action::Send(message) => self
                    .http
                    .call("/v1/message", &message, Duration::ZERO)
                    .await
                    .map(|wire::Ack { .. }| Input::Delivered),
                Action::Upload => self.upload(session).await,
            };
            let input = match input {
                Ok(input) => input,
                Err(error) => {
                    // The instruction comes again, and with it the action.
                    (session.version, session.failed) = (0, true);
                    match error.name() {
                        Some(name) => Input::Refused(name.to_owned()),
                        None => {
                            let reason = error.to_string();
                            self.pause(error).await?;
                            Input::Failed(reason)
                        }
                    }
                }
            };
            actions.extend(session.participant.handle(input)?);
        }
        Ok(None)
    }

    async fn train(
        &mut self,
        session: &mut Session<impl Work>,
        job: Job,
    ) -> Result<Result<Input, CallError>> {
        let turn = job.turn;
        if !self.options.conditions.hold() {
            return Ok(self.decline(turn, "the device is in use").await);
        }
        let start = job.model.clone();
        tracing::info!(round = turn.round, attempt = turn.attempt, "training");
        self.tell(&Event::Training(turn));
        let task = session.participant.task().clone();
        let trained = match session.trainer.train(&task, job).await? {
            Ok(trained) => trained,
            Err(error) => {
                tracing::error!(%error, "training failed, sitting this round out");
                return Ok(self.decline(turn, &error.to_string()).await);
            }
        };
        if task.updates.kind == UpdateKind::Delta {
            let own: Vec<f32> = start.iter().zip(&trained.update).map(|(a, b)| a + b).collect();
            let parameters = session.layout.parameters();
            self.folder.save_model("personal.safetensors", parameters, &own).await?;
        }
        self.tell(&Event::Trained(turn, &trained));
        Ok(Ok(Input::Trained(trained)))
    }

    async fn evaluate(
        &mut self,
        session: &mut Session<impl Work>,
        job: Job,
    ) -> Result<Input, CallError> {
        let task = session.participant.task().clone();
        let evaluated = session.trainer.evaluate(&task, job.model).await;
        match evaluated.and_then(|evaluated| evaluated) {
            Ok((samples, metrics)) => Ok(Input::Evaluated { samples, metrics }),
            Err(error) => {
                tracing::error!(%error, "evaluation failed");
                self.decline(job.turn, &error.to_string()).await
            }
        }
    }

    /// Tells the server not to wait for this client.
    async fn decline(&self, turn: Turn, reason: &str) -> Result<Input, CallError> {
        let message = declined(turn, reason);
        let wire::Ack { .. } = self.http.call("/v1/message", &message, Duration::ZERO).await?;
        Ok(Input::Failed(reason.to_owned()))
    }

    /// Fetches the run's best model and stores it. `None`, after a while, if the server doesn't have
    /// it, or not whole: it may again.
    async fn keep_best<T>(
        &mut self,
        session: &mut Session<T>,
        best: Digest,
    ) -> Result<Option<PathBuf>> {
        let error = match self.download(session, best).await {
            Ok(bytes) if Digest::of(&bytes) == best => {
                return self.keep(&session.layout, &bytes).await.map(Some);
            }
            Ok(_) => CallError::blob(best, "the body of that digest"),
            Err(error) => error.for_now(),
        };
        (session.version, session.failed) = (0, true);
        self.pause(error).await?;
        Ok(None)
    }

    async fn keep(&self, layout: &Layout, bytes: &[u8]) -> Result<PathBuf> {
        let (elements, parameters) = (layout.elements(), layout.parameters());
        if bytes.len() != 4 * elements {
            let expected = format!("{} bytes, as its layout has", 4 * elements);
            return Err(Error::value("best model", format!("{} bytes", bytes.len()), expected));
        }
        let flat = Codec::floats(bytes);
        self.folder.save_model("model.safetensors", parameters, &flat).await
    }

    /// Tells who watches.
    fn tell(&self, event: &Event<'_>) {
        if let Some(watch) = &self.options.watch {
            watch(event);
        }
    }

    /// Waits before trying again.
    ///
    /// # Errors
    /// If trying again is no use.
    async fn pause(&mut self, error: CallError) -> Result<()> {
        let asked = match (&error, error.retry()) {
            (_, Some(asked)) => asked,
            // A network that shows its own page, until somebody signs in say: it was there before.
            (CallError::Stranger { .. }, None) if self.met => Duration::ZERO,
            (CallError::Stranger { server, reason, expected }, None) => {
                return Err(Error::value("server", format!("{server}, {reason}"), *expected));
            }
            _ => return Err(Error::value("server's answer", error, "that it takes this client")),
        };
        let wait = self.options.backoff.wait(Some(asked));
        tracing::warn!(%error, seconds = wait.as_secs_f64(), "trying again");
        self.tell(&Event::Waiting(&error, wait));
        sleep(wait).await;
        Ok(())
    }
}
