//! A simulation's folder: what it goes on from after its process has ended.
//!
//! `state.json` says what counts, and is replaced at once. It names the file of the server's models,
//! and of the two records that a client has in `clients.bin` the one with what it keeps; what it keeps
//! next is written to the other one. So the process may end at any moment: the folder holds what
//! was saved last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tern_host::files::{self, Durability};
use tern_host::folder::FolderLock;
use tern_protocol::coordinator::Coordinator;
use tern_protocol::update::Codec;
use tern_protocol::{Digest, Error, Result, RunId, RunPlan};

use super::Simulation;

/// Raised when the files change.
const VERSION: u32 = 1;
/// How the names of the server's files begin.
const SERVER: &str = "server-";

/// `state.json`
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    run: RunId,
    plan: RunPlan,
    /// Who takes part.
    population: Digest,
    /// SHA-256 of the server's file, which is in its name.
    server: Digest,
    clients: BTreeMap<usize, Kept>,
}

/// What is kept of a client.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Whether the second record is the one that counts.
    second: bool,
    /// Steps of its optimizer.
    steps: u32,
}

/// The folder of a simulation, which is its alone.
pub(super) struct Store {
    folder: PathBuf,
    records: File,
    /// Bytes of a record.
    record: u64,
    clients: BTreeMap<usize, Kept>,
    /// Clients whose records are older than what they keep.
    changed: BTreeSet<usize>,
    _lock: FolderLock,
}

impl Store {
    fn open(folder: &Path, record: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let lock = FolderLock::take(folder)?;
        let path = folder.join("clients.bin");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        Ok(Store {
            folder: folder.to_path_buf(),
            records: options.open(&path).map_err(|e| Error::file(&path, e))?,
            record,
            clients: BTreeMap::new(),
            changed: BTreeSet::new(),
            _lock: lock,
        })
    }

    /// These clients keep something else now.
    pub fn changed(&mut self, clients: &[usize]) {
        if self.record > 0 {
            self.changed.extend(clients);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn server_path(&self, digest: &Digest) -> PathBuf {
        self.path(&format!("{SERVER}{digest}"))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::file(&self.path("clients.bin"), error)
    }

    fn seek(&mut self, client: usize, second: bool) -> Result<()> {
        let at = (2 * client as u64 + u64::from(second)) * self.record;
        self.records.seek(SeekFrom::Start(at)).map(drop).map_err(|error| self.failed(error))
    }

    fn write(&mut self, client: usize, second: bool, values: &[f32]) -> Result<()> {
        self.seek(client, second)?;
        let written = self.records.write_all(&Codec::full(values));
        written.map_err(|error| self.failed(error))
    }

    fn read(&mut self, client: usize, second: bool) -> Result<Vec<f32>> {
        self.seek(client, second)?;
        let mut bytes = vec![0; self.record as usize];
        self.records.read_exact(&mut bytes).map_err(|error| self.failed(error))?;
        Ok(Codec::floats(&bytes))
    }

    /// What `state.json` has, if the folder has one.
    fn state(&self) -> Result<Option<State>> {
        let path = self.path("state.json");
        let json = match std::fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(&path, error)),
        };
        let state: State = serde_json::from_slice(&json).map_err(|e| Error::file(&path, e))?;
        match state.version {
            VERSION => Ok(Some(state)),
            other => Err(Error::file(&path, format!("version {other}, expected {VERSION}"))),
        }
    }

    /// Removes what the state doesn't name.
    fn sweep(&self, server: &Digest) -> Result<()> {
        let kept = self.server_path(server);
        let failed = |error| Error::file(&self.folder, error);
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let partial = path.extension().is_some_and(|end| end == files::PARTIAL);
            if partial || name.starts_with(SERVER) && path != kept {
                std::fs::remove_file(&path).map_err(|e| Error::file(&path, e))?;
            }
        }
        Ok(())
    }
}

/// Sections one after the other, each with its length before it.
fn join(sections: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for section in sections {
        bytes.extend((section.len() as u64).to_le_bytes());
        bytes.extend(section);
    }
    bytes
}

fn split<const N: usize>(mut bytes: &[u8]) -> Option<[&[u8]; N]> {
    let mut sections = [&[][..]; N];
    for section in &mut sections {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        (*section, bytes) = rest.split_at_checked(length)?;
    }
    bytes.is_empty().then_some(sections)
}

impl Simulation {
    /// Goes on from a folder, or begins one that nothing was saved to.
    pub(super) fn open(&mut self, folder: &Path) -> Result<()> {
        let elements = self.server.public().len() as u64;
        let kinds = u64::from(self.residuals.is_some())
            + self.optimizers.as_ref().map_or(0, |optimizers| optimizers.moments() as u64);
        let mut store = Store::open(folder, 4 * elements * kinds)?;
        match store.state()? {
            Some(state) => {
                self.restore(&mut store, state)?;
                self.store = Some(store);
                Ok(())
            }
            None => {
                self.store = Some(store);
                self.save()
            }
        }
    }

    fn restore(&mut self, store: &mut Store, state: State) -> Result<()> {
        let plan = self.coordinator.plan().clone();
        plan.check_goes_on_from(&state.plan)?;
        if state.run != self.run {
            return Err(Error::value("run", self.run, format!("the one saved, {}", state.run)));
        }
        let population = self.clients.digest();
        if state.population != population {
            let expected = format!("those that the simulation began with, {}", state.population);
            return Err(Error::value("clients of the simulation", population, expected));
        }
        let path = store.server_path(&state.server);
        let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
        if Digest::of(&bytes) != state.server {
            return Err(Error::file(&path, "its bytes have another SHA-256"));
        }
        let broken = || Error::file(&path, "expected the models of a simulation");
        let [snapshot, server @ ..] = split::<5>(&bytes).ok_or_else(broken)?;
        self.server.restore(server)?.ok_or_else(broken)?;
        self.coordinator = Coordinator::restore(plan, self.run, snapshot)?;
        self.now = self.coordinator.now();
        for (client, kept) in &state.clients {
            let record = store.read(*client, kept.second)?;
            let mut vectors = record.chunks_exact(self.server.public().len());
            if let Some(residuals) = &mut self.residuals
                && let Some(residual) = vectors.next()
            {
                residuals.restore(*client, residual)?;
            }
            if let Some(optimizers) = &mut self.optimizers {
                optimizers.restore(*client, kept.steps, vectors)?;
            }
        }
        store.clients = state.clients;
        Ok(())
    }

    /// Saves what a simulation of the same plan, clients and folder goes on from
    /// ([`Options::folder`](super::Options::folder)): the state after the last round. Without a
    /// folder it does nothing.
    ///
    /// # Errors
    /// [`Error::File`], and what was saved before stays; device errors.
    pub fn save(&mut self) -> Result<()> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let mut clients = store.clients.clone();
        for client in store.changed.clone() {
            let (mut record, mut steps) = (Vec::new(), 0);
            if let Some(residuals) = &mut self.residuals {
                record.extend(residuals.values(client)?);
            }
            if let Some(optimizers) = &mut self.optimizers {
                steps = optimizers.steps(client);
                record.extend(optimizers.values(client)?);
            }
            let second = clients.get(&client).is_some_and(|kept| !kept.second);
            store.write(client, second, &record)?;
            clients.insert(client, Kept { second, steps });
        }
        store.records.sync_data().map_err(|error| store.failed(error))?;
        let [model, public, best, strategy] = self.server.state()?;
        let body = join(&[self.coordinator.snapshot(), model, public, best, strategy]);
        let server = Digest::of(&body);
        files::replace(&store.server_path(&server), &body, Durability::Power)?;
        let state = State {
            version: VERSION,
            run: self.run,
            plan: self.coordinator.plan().clone(),
            population: self.clients.digest(),
            server,
            clients,
        };
        let path = store.path("state.json");
        let json = serde_json::to_vec(&state).map_err(|e| Error::file(&path, e))?;
        files::replace(&path, &json, Durability::Power)?;
        store.clients = state.clients;
        store.changed.clear();
        store.sweep(&server)
    }
}
