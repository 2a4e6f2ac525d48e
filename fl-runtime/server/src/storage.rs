//! What a run is kept in: the seam between a [`Federation`](crate::federation::Federation) and what
//! remembers it.
//!
//! A [`Ledger`] has what must be decided once, in order: the plan, clients, events, rounds.
//! [`Bodies`] have the bytes: models, states, updates. On one machine they are a
//! [`Journal`] and [`Blobs`]; a fleet has a database and an object store. The federation and its
//! coordinator don't know which.
//!
//! ```
//! use tern_host::files::{Durability, Faults};
//! use tern_server::blobs::Blobs;
//! use tern_server::storage::Bodies;
//!
//! # fn main() -> tern_protocol::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let blobs = Blobs::open(folder.path(), Durability::Process, 100, Faults::default())?;
//! let bodies: &dyn Bodies = &blobs;
//! let digest = bodies.put(b"a model")?;
//! assert_eq!(bodies.read(&digest)?, b"a model");
//! assert_eq!(bodies.piece(&digest, 2, 5)?, b"model");
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tern_protocol::coordinator::{Coordinator, RoundRecord};
use tern_protocol::{ClientId, Digest, Error, Millis, Result, RunId, Turn, wire};

use crate::blobs::{Blobs, Partial};
use crate::journal::{CommittedRound, CountedUpload, Journal};

/// What must be decided once. A write is whole or not there, and the one who writes is told so
/// before anybody is told what follows from it.
pub trait Ledger: Send {
    /// A value by name: `run`, `plan`, `initial` (the first model's digest), `snapshot`; nothing
    /// before a run was started.
    ///
    /// # Errors
    /// The storage's.
    fn value(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Starts a run, with its plan and the state before its first round.
    ///
    /// # Errors
    /// The storage's, also if there is a run.
    fn start(&mut self, run: &RunId, plan: &[u8], initial: &Digest, snapshot: &[u8]) -> Result<()>;

    /// Changes the plan.
    ///
    /// # Errors
    /// The storage's; nothing changed then.
    fn set_plan(&mut self, plan: &[u8]) -> Result<()>;

    /// Clients that are registered.
    ///
    /// # Errors
    /// The storage's.
    fn clients(&self) -> Result<Vec<ClientId>>;

    /// Digests of tokens, and how many clients were registered by each.
    ///
    /// # Errors
    /// The storage's.
    fn tokens(&self) -> Result<BTreeMap<Digest, u32>>;

    /// Registers a client, by the token with this digest; registering it again changes nothing.
    ///
    /// # Errors
    /// The storage's.
    fn enroll(&mut self, now: Millis, client: &ClientId, token: Option<&Digest>) -> Result<()>;

    /// Appends an event to those of the open attempt; `after` is the state that it leads to.
    ///
    /// # Errors
    /// The storage's; the event isn't there then.
    fn append(&mut self, event: &wire::Journaled, after: &Coordinator) -> Result<()>;

    /// Ends an attempt that failed: the state before the next one and no open events, at once.
    ///
    /// # Errors
    /// The storage's; nothing changed then.
    fn repeat(&mut self, after: &Coordinator) -> Result<()>;

    /// Ends a round: its record, the state after it, and no open events, all at once.
    ///
    /// # Errors
    /// The storage's; nothing changed then.
    fn commit(&mut self, record: &RoundRecord, after: &Coordinator) -> Result<()>;

    /// Events of the open attempt, in order.
    ///
    /// # Errors
    /// The storage's.
    fn events(&self) -> Result<Vec<wire::Journaled>>;

    /// Committed rounds after round `after`, in order.
    ///
    /// # Errors
    /// The storage's.
    fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>>;

    /// Updates in a committed round, in order of their clients' keys.
    ///
    /// # Errors
    /// The storage's.
    fn counted(&self, round: u32) -> Result<Vec<CountedUpload>>;

    /// The attempt that made a committed round.
    ///
    /// # Errors
    /// The storage's.
    fn turn(&self, round: u32) -> Result<Option<Turn>>;

    /// Whether all that was written would be missed if it were lost.
    fn is_settled(&self) -> bool {
        true
    }
}

/// Models, states and updates. What has a digest is named by it; a body is whole or not there.
pub trait Bodies: Send + Sync {
    /// Stores a model or state under its digest.
    ///
    /// # Errors
    /// [`Error::File`]; nothing is left of it then.
    fn put(&self, bytes: &[u8]) -> Result<Digest>;

    /// Reads a model or state.
    ///
    /// # Errors
    /// [`Error::File`], also for bytes that have another digest.
    fn read(&self, digest: &Digest) -> Result<Vec<u8>>;

    /// Bytes of a model or state; `None` if there is no such.
    ///
    /// # Errors
    /// [`Error::File`].
    fn length(&self, digest: &Digest) -> Result<Option<u64>>;

    /// `length` bytes of a model or state from `first` on.
    ///
    /// # Errors
    /// [`Error::File`], also if there are fewer.
    fn piece(&self, digest: &Digest, first: u64, length: usize) -> Result<Vec<u8>>;

    /// What a model or state is called in messages.
    fn name(&self, digest: &Digest) -> PathBuf;

    /// What an accepted update is called in messages.
    fn upload_name(&self, turn: Turn, client: &ClientId) -> PathBuf;

    /// Opens an accepted update; `None` if it is gone. Its bytes are checked by whoever reads them.
    ///
    /// # Errors
    /// [`Error::File`].
    fn upload(
        &self,
        turn: Turn,
        client: &ClientId,
        digest: &Digest,
    ) -> Result<Option<Box<dyn Read + '_>>>;

    /// Opens what is there of an update that is coming in.
    ///
    /// # Errors
    /// [`Error::File`].
    fn partial(&self, turn: Turn, client: &ClientId) -> Result<Partial>;

    /// Makes a complete update an accepted one.
    ///
    /// # Errors
    /// [`Error::File`].
    fn accept(
        &self,
        partial: &Partial,
        turn: Turn,
        client: &ClientId,
        digest: &Digest,
    ) -> Result<()>;

    /// Removes models and states other than `kept`, and updates of attempts before `open`, but for
    /// accepted ones of attempts that `settled` keeps, which it is asked once.
    ///
    /// # Errors
    /// [`Error::File`].
    fn sweep(&self, kept: &[Digest], open: Turn, settled: &dyn Fn(Turn) -> bool) -> Result<()>;

    /// Bytes of all bodies, as far as this process knows.
    fn used(&self) -> u64;

    /// Folder in which copies of models may lie that are written for people.
    fn folder(&self) -> Option<&Path> {
        None
    }
}

impl Ledger for Journal {
    fn value(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.get(name)
    }

    fn start(&mut self, run: &RunId, plan: &[u8], initial: &Digest, snapshot: &[u8]) -> Result<()> {
        Journal::start(self, run, plan, initial, snapshot)
    }

    fn set_plan(&mut self, plan: &[u8]) -> Result<()> {
        Journal::set_plan(self, plan)
    }

    fn clients(&self) -> Result<Vec<ClientId>> {
        Journal::clients(self)
    }

    fn tokens(&self) -> Result<BTreeMap<Digest, u32>> {
        Journal::tokens(self)
    }

    fn enroll(&mut self, now: Millis, client: &ClientId, token: Option<&Digest>) -> Result<()> {
        Journal::enroll(self, now, client, token)
    }

    fn append(&mut self, event: &wire::Journaled, _: &Coordinator) -> Result<()> {
        Journal::append(self, event)
    }

    fn repeat(&mut self, after: &Coordinator) -> Result<()> {
        Journal::repeat(self, &after.snapshot())
    }

    fn commit(&mut self, record: &RoundRecord, after: &Coordinator) -> Result<()> {
        Journal::commit(self, after.now(), record, &after.snapshot())
    }

    fn events(&self) -> Result<Vec<wire::Journaled>> {
        Journal::events(self)
    }

    fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>> {
        Journal::rounds(self, after)
    }

    fn counted(&self, round: u32) -> Result<Vec<CountedUpload>> {
        self.uploads(round)
    }

    fn turn(&self, round: u32) -> Result<Option<Turn>> {
        Journal::turn(self, round)
    }

    fn is_settled(&self) -> bool {
        Journal::is_settled(self)
    }
}

impl Bodies for Blobs {
    fn put(&self, bytes: &[u8]) -> Result<Digest> {
        self.put_model(bytes)
    }

    fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.read_model(digest)
    }

    fn length(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.model_path(digest);
        match std::fs::metadata(&path) {
            Ok(data) => Ok(Some(data.len())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file(&path, e)),
        }
    }

    fn piece(&self, digest: &Digest, first: u64, length: usize) -> Result<Vec<u8>> {
        let path = self.model_path(digest);
        let read = || {
            let (mut file, mut bytes) = (File::open(&path)?, vec![0; length]);
            file.seek(SeekFrom::Start(first))?;
            file.read_exact(&mut bytes).map(|()| bytes)
        };
        read().map_err(|e| Error::file(&path, e))
    }

    fn name(&self, digest: &Digest) -> PathBuf {
        self.model_path(digest)
    }

    fn upload_name(&self, turn: Turn, client: &ClientId) -> PathBuf {
        self.upload_path(turn, client)
    }

    fn upload(
        &self,
        turn: Turn,
        client: &ClientId,
        _: &Digest,
    ) -> Result<Option<Box<dyn Read + '_>>> {
        Ok(Blobs::upload(self, turn, client)?.map(|file| Box::new(file) as Box<dyn Read>))
    }

    fn partial(&self, turn: Turn, client: &ClientId) -> Result<Partial> {
        Blobs::partial(self, turn, client)
    }

    fn accept(&self, partial: &Partial, turn: Turn, client: &ClientId, _: &Digest) -> Result<()> {
        Blobs::accept(self, partial, turn, client)
    }

    fn sweep(&self, kept: &[Digest], open: Turn, settled: &dyn Fn(Turn) -> bool) -> Result<()> {
        self.sweep_models(kept)?;
        self.sweep_uploads(open, settled)
    }

    fn used(&self) -> u64 {
        Blobs::used(self)
    }

    fn folder(&self) -> Option<&Path> {
        Some(Blobs::folder(self))
    }
}
