//! What answers clients behind HTTP: a federation in this process, or what stands for one that is
//! kept elsewhere.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use tern_host::clock;
use tern_protocol::auth::{AuthError, Credentials};
use tern_protocol::plan::Task;
use tern_protocol::{
    ClientId, Digest, Error, Layout, Millis, Refusal, Result, RunPlan, StartId, Turn, wire,
};
use tokio::sync::watch;

use super::status::Board;
use crate::federation::{Federation, Incoming, Status};
use crate::journal::CommittedRound;

/// What a server answers with. All of it may wait for storage or for others, but where it says that
/// it doesn't.
pub trait Backend: Send + Sync + 'static {
    /// The plan.
    fn plan(&self) -> &RunPlan;

    /// What clients need to know of it.
    fn task(&self) -> &Task;

    /// The layout of its model.
    fn layout(&self) -> &Layout;

    /// The time of the last event: no client's request is older that counts.
    fn since(&self) -> Millis;

    /// Whether a client is registered, as far as this process knows; it doesn't wait.
    fn is_enrolled(&self, client: &ClientId) -> bool;

    /// Whether a client is registered that this process doesn't know.
    ///
    /// # Errors
    /// [`Refusal::Storage`].
    fn looks_up(&self, _client: &ClientId) -> Result<bool, Refusal> {
        Ok(false)
    }

    /// Takes a verified request's nonce, where other processes take requests, too.
    ///
    /// # Errors
    /// [`AuthError::Replayed`].
    fn admit(&self, _credentials: &Credentials) -> Result<(), AuthError> {
        Ok(())
    }

    /// The start that requests are signed for, where several processes take them and
    /// [`Backend::admit`] knows the nonces that any of them took. Others have one of their own.
    fn start(&self) -> Option<StartId> {
        None
    }

    /// Registers a client.
    ///
    /// # Errors
    /// Why it is not admitted.
    fn enroll(&self, client: ClientId, token: Option<&str>) -> Result<(), Refusal>;

    /// Whether this process of a client may go on.
    ///
    /// # Errors
    /// [`Refusal::Copied`].
    fn check_process(&self, client: &ClientId, process: u64) -> Result<(), Refusal>;

    /// A client is there; what should it do?
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Storage`].
    fn poll(&self, client: &ClientId, samples: u32) -> Result<wire::Instruction, Refusal>;

    /// Takes a message.
    ///
    /// # Errors
    /// Why it is not taken.
    fn message(&self, client: &ClientId, message: wire::Message) -> Result<wire::Ack, Refusal>;

    /// Where an upload goes, if one of this client would be taken.
    ///
    /// # Errors
    /// Why it would not be taken.
    fn incoming(&self, client: &ClientId, turn: Turn) -> Result<Incoming, Refusal>;

    /// Checks a complete upload and takes it.
    ///
    /// # Errors
    /// Why it is not taken.
    fn finish(&self, client: &ClientId, finish: wire::Finish) -> Result<wire::Ack, Refusal>;

    /// Bytes of a model that this client may fetch; `None` if there is none of the digest.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Storage`].
    fn length(&self, client: &ClientId, digest: &Digest) -> Result<Option<u64>, Refusal>;

    /// A piece of such a model.
    ///
    /// # Errors
    /// [`Error::File`].
    fn piece(&self, digest: &Digest, first: u64, length: usize) -> Result<Vec<u8>>;

    /// What keeps the run from going on.
    fn trouble(&self) -> Option<String>;

    /// Does what is due.
    ///
    /// # Errors
    /// What can't be done now; the next call tries again.
    fn step(&self) -> Result<()>;

    /// What the run is doing.
    ///
    /// # Errors
    /// The storage's.
    fn status(&self) -> Result<Status>;

    /// Committed rounds after round `after`.
    ///
    /// # Errors
    /// The storage's.
    fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>>;

    /// The last model and the best one, as clients have them.
    ///
    /// # Errors
    /// The storage's.
    fn models(&self) -> Result<[Vec<f32>; 2]>;

    /// Changes when instructions may have; it doesn't wait.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A federation in this process.
pub(super) struct Embedded {
    plan: RunPlan,
    task: Task,
    layout: Layout,
    since: Millis,
    federation: Mutex<Federation>,
    board: Board,
    /// Rises when an instruction may have changed.
    changed: watch::Sender<u64>,
    /// As the federation has them, to be asked without waiting for it.
    enrolled: RwLock<HashSet<ClientId>>,
}

impl Embedded {
    pub fn new(federation: Federation, board: Board) -> Self {
        Embedded {
            plan: federation.plan().clone(),
            task: federation.task().clone(),
            layout: federation.layout().clone(),
            since: federation.coordinator().now(),
            changed: watch::Sender::new(0),
            enrolled: RwLock::new(federation.enrolled().copied().collect()),
            federation: Mutex::new(federation),
            board,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Federation> {
        self.federation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who waits and who watches if it changed anything.
    fn with<T>(&self, run: impl FnOnce(&mut Federation) -> T) -> T {
        let mut federation = self.lock();
        let version = federation.version();
        let result = run(&mut federation);
        if federation.version() != version {
            self.show(&federation);
            self.changed.send_replace(federation.version());
        }
        result
    }

    fn show(&self, federation: &Federation) {
        let rounds = federation.rounds(self.board.rounds());
        self.board.show(&self.plan, Ok(federation.status()), rounds);
    }

    fn known(&self, federation: &mut Federation, client: &ClientId) -> Result<(), Refusal> {
        match federation.is_enrolled(client) {
            true => Ok(()),
            false => federation.refuse(Refusal::Unknown(*client)),
        }
    }
}

impl Backend for Embedded {
    fn plan(&self) -> &RunPlan {
        &self.plan
    }

    fn task(&self) -> &Task {
        &self.task
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn since(&self) -> Millis {
        self.since
    }

    fn is_enrolled(&self, client: &ClientId) -> bool {
        self.enrolled.read().unwrap_or_else(PoisonError::into_inner).contains(client)
    }

    fn enroll(&self, client: ClientId, token: Option<&str>) -> Result<(), Refusal> {
        self.with(|federation| federation.enroll(clock::now(), client, token))?;
        self.enrolled.write().unwrap_or_else(PoisonError::into_inner).insert(client);
        Ok(())
    }

    fn check_process(&self, client: &ClientId, process: u64) -> Result<(), Refusal> {
        self.with(|federation| federation.check_process(client, process))
    }

    fn poll(&self, client: &ClientId, samples: u32) -> Result<wire::Instruction, Refusal> {
        self.with(|federation| federation.poll(clock::now(), client, samples))
    }

    fn message(&self, client: &ClientId, message: wire::Message) -> Result<wire::Ack, Refusal> {
        self.with(|federation| federation.message(clock::now(), client, message))
    }

    fn incoming(&self, client: &ClientId, turn: Turn) -> Result<Incoming, Refusal> {
        self.with(|federation| federation.incoming(client, turn))
    }

    fn finish(&self, client: &ClientId, finish: wire::Finish) -> Result<wire::Ack, Refusal> {
        let turn = Turn::new(finish.round, finish.attempt);
        let incoming = self.with(|federation| match federation.finishing(client, &finish) {
            Err(Refusal::Repeated) => federation.finish_again(client, turn, &finish).map(Err),
            incoming => incoming.map(Ok),
        });
        let incoming = match incoming? {
            Ok(incoming) => incoming,
            Err(ack) => return Ok(ack),
        };
        // The whole body is read here: others needn't wait for that.
        let received = incoming.finish(&finish.digest)?;
        self.with(|federation| federation.accept(clock::now(), received, finish))
    }

    fn length(&self, client: &ClientId, digest: &Digest) -> Result<Option<u64>, Refusal> {
        let bodies = self.with(|federation| {
            self.known(federation, client)?;
            let kept = federation.coordinator().kept().contains(digest);
            Ok(kept.then(|| federation.bodies().clone()))
        })?;
        let Some(bodies) = bodies else { return Ok(None) };
        bodies.length(digest).map_err(|error| Refusal::Storage(error.to_string()))
    }

    fn piece(&self, digest: &Digest, first: u64, length: usize) -> Result<Vec<u8>> {
        let bodies = self.lock().bodies().clone();
        bodies.piece(digest, first, length)
    }

    fn trouble(&self) -> Option<String> {
        self.lock().trouble().map(str::to_owned)
    }

    fn step(&self) -> Result<()> {
        let work = self.with(|federation| {
            federation.advance(clock::now())?;
            Ok::<_, Error>(federation.work())
        })?;
        let Some(work) = work else { return Ok(()) };
        // Without the lock: it can take long, and clients are answered meanwhile.
        let done = catch_unwind(AssertUnwindSafe(|| work.run())).unwrap_or_else(|_| {
            Err(Error::value("the making of a model", "a panic, see the log", "none"))
        });
        self.with(|federation| federation.complete(clock::now(), done))
    }

    fn status(&self) -> Result<Status> {
        Ok(self.lock().status())
    }

    fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>> {
        self.lock().rounds(after)
    }

    fn models(&self) -> Result<[Vec<f32>; 2]> {
        let federation = self.lock();
        let coordinator = federation.coordinator();
        let [last, best] = [coordinator.head().public, coordinator.best_model()];
        Ok([federation.model(&last)?, federation.model(&best)?])
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
