//! A client's folder: its key, and for each run what
//! [`Participant`](tern_protocol::participant) keeps.
//!
//! Vectors and bodies are files named after their digest, and `state.json` says which ones count.
//! It is replaced at once, so that a crash leaves the old state or the new one. Only the folder's
//! owner may read what is in it.
//!
//! ```
//! use tern_host::files::Durability;
//! use tern_host::store::ClientStore;
//! use tern_protocol::{RunId, participant::SavedState};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let run = RunId([7; 16]);
//! let store = ClientStore::open(folder.path(), &run, Durability::Process)?;
//! // A new client has kept nothing.
//! assert_eq!(store.load()?, SavedState::default());
//!
//! let kept = SavedState { residual: vec![0.1, -2.0], ..SavedState::default() };
//! store.save(&kept)?;
//! let again = ClientStore::open(folder.path(), &run, Durability::Process)?;
//! assert_eq!(again.load()?, kept);
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tern_protocol::metrics::Metrics;
use tern_protocol::participant::{Pending, SavedState};
use tern_protocol::trainer::OptimizerState;
use tern_protocol::update::Codec;
use tern_protocol::{Digest, Ended, Error, Result, RunId, Turn};
use tern_secagg::History;

use crate::files::{self, Durability};

/// Where a client's files of one run lie: values of bytes, by names without folders.
pub trait Files {
    /// What errors call a file.
    fn path(&self, name: &str) -> PathBuf;

    /// The bytes of a file, if it is there.
    ///
    /// # Errors
    /// [`Error::File`].
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`].
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// The files that are there, those that were not written to their ends, too.
    ///
    /// # Errors
    /// [`Error::File`].
    fn names(&self) -> Result<Vec<String>>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`Error::File`].
    fn remove(&self, name: &str) -> Result<()>;
}

/// Files of a folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    durability: Durability,
}

impl Files for Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file(&path, error)),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        files::replace(&self.path(name), bytes, self.durability)
    }

    fn names(&self) -> Result<Vec<String>> {
        let failed = |e: std::io::Error| Error::file(&self.path, e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        std::fs::remove_file(&path).map_err(|e| Error::file(&path, e))
    }
}

/// What a client keeps in one run, in files.
#[derive(Clone, Debug)]
pub struct ClientStore<F = Folder>(F);

/// The file that says which others count.
const STATE: &str = "state.json";

/// `state.json`
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    residual: Option<Digest>,
    #[serde(default)]
    optimizer: OptimizerFile,
    history: History,
    sums: Option<Digest>,
    #[serde(default)]
    ended: Option<Ended>,
    pending: Option<PendingState>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PendingState {
    turn: Turn,
    body: Digest,
    samples: u32,
    metrics: Metrics,
    residual: Option<Digest>,
    #[serde(default)]
    optimizer: OptimizerFile,
    included: Option<Digest>,
}

/// An [`OptimizerState`] whose moments are a file.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct OptimizerFile {
    steps: u32,
    moments: Option<Digest>,
}

impl ClientStore {
    /// Opens or makes the folder of a run; what is stored survives so much.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(folder: &Path, run: &RunId, durability: Durability) -> Result<Self> {
        let path = folder.join(run.to_string());
        std::fs::create_dir_all(&path).map_err(|e| Error::file(&path, e))?;
        Ok(ClientStore(Folder { path, durability }))
    }
}

impl<F: Files> ClientStore<F> {
    /// In files that lie elsewhere.
    pub fn of(files: F) -> Self {
        ClientStore(files)
    }

    fn put(&self, bytes: &[u8]) -> Result<Option<Digest>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let digest = Digest::of(bytes);
        // One that is there may be damaged.
        if self.get(Some(digest)).is_err() {
            self.0.write(&digest.to_string(), bytes)?;
        }
        Ok(Some(digest))
    }

    fn get(&self, digest: Option<Digest>) -> Result<Vec<u8>> {
        let Some(digest) = digest else { return Ok(Vec::new()) };
        let name = digest.to_string();
        let failed = |reason: &str| Error::file(&self.0.path(&name), reason);
        let bytes = self.0.read(&name)?.ok_or_else(|| failed("isn't there"))?;
        if Digest::of(&bytes) != digest {
            return Err(failed("its bytes have another SHA-256"));
        }
        Ok(bytes)
    }

    fn put_optimizer(&self, state: &OptimizerState) -> Result<OptimizerFile> {
        let moments = self.put(&Codec::full(&state.moments))?;
        Ok(OptimizerFile { steps: state.steps, moments })
    }

    fn get_optimizer(&self, file: OptimizerFile) -> Result<Arc<OptimizerState>> {
        let moments = self.get_floats(file.moments)?;
        Ok(Arc::new(OptimizerState { steps: file.steps, moments }))
    }

    fn get_floats(&self, digest: Option<Digest>) -> Result<Vec<f32>> {
        Ok(Codec::floats(&self.get(digest)?))
    }

    /// Stores what a client keeps.
    ///
    /// # Errors
    /// [`Error::File`]; what was stored before stays then.
    pub fn save(&self, kept: &SavedState) -> Result<()> {
        let pending = kept.pending.as_ref().map(|pending| {
            Ok::<_, Error>(PendingState {
                turn: pending.turn,
                body: self.put(&pending.body)?.unwrap_or(pending.digest),
                samples: pending.samples,
                metrics: pending.metrics.clone(),
                residual: self.put(&Codec::full(&pending.residual))?,
                optimizer: self.put_optimizer(&pending.optimizer)?,
                included: self.put(&pending.included)?,
            })
        });
        let residual = self.put(&Codec::full(&kept.residual))?;
        let optimizer = self.put_optimizer(&kept.optimizer)?;
        let (history, ended) = (kept.history.clone(), kept.ended);
        let path = self.0.path(STATE);
        let sums = match kept.sums.is_empty() {
            true => Vec::new(),
            false => serde_json::to_vec(&kept.sums).map_err(|e| Error::file(&path, e))?,
        };
        let sums = self.put(&sums)?;
        let pending = pending.transpose()?;
        let state = State { residual, optimizer, history, sums, ended, pending };
        let json = serde_json::to_vec_pretty(&state).map_err(|e| Error::file(&path, e))?;
        self.0.write(STATE, &json)?;
        self.sweep(&state)
    }

    /// Removes what the state doesn't name, and what was not written to its end.
    fn sweep(&self, state: &State) -> Result<()> {
        let pending = state.pending.as_ref();
        let of_pending =
            |p: &PendingState| [Some(p.body), p.residual, p.optimizer.moments, p.included];
        let of_pending = pending.map_or([None; 4], of_pending);
        let own = [state.residual, state.optimizer.moments, state.sums];
        let kept = [&own[..], &of_pending].concat();
        for name in self.0.names()? {
            let digest = name.parse::<Digest>().ok();
            let partial = Path::new(&name).extension().is_some_and(|end| end == files::PARTIAL);
            if partial || digest.is_some_and(|digest| !kept.contains(&Some(digest))) {
                self.0.remove(&name)?;
            }
        }
        Ok(())
    }

    /// What a client stored last; nothing if it is new.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read.
    pub fn load(&self) -> Result<SavedState> {
        let path = self.0.path(STATE);
        let Some(json) = self.0.read(STATE)? else { return Ok(SavedState::default()) };
        let state: State = serde_json::from_slice(&json).map_err(|e| Error::file(&path, e))?;
        let pending = state.pending.map(|pending| {
            Ok::<_, Error>(Pending {
                turn: pending.turn,
                digest: pending.body,
                body: self.get(Some(pending.body))?,
                samples: pending.samples,
                metrics: pending.metrics,
                residual: self.get_floats(pending.residual)?,
                optimizer: self.get_optimizer(pending.optimizer)?,
                included: self.get(pending.included)?,
            })
        });
        let residual = self.get_floats(state.residual)?;
        let optimizer = self.get_optimizer(state.optimizer)?;
        let pending = pending.transpose()?;
        let sums = match state.sums {
            Some(digest) => serde_json::from_slice(&self.get(Some(digest))?)
                .map_err(|e| Error::file(&self.0.path(&digest.to_string()), e))?,
            None => Vec::new(),
        };
        let State { history, ended, .. } = state;
        Ok(SavedState { residual, optimizer, history, sums, ended, pending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::ClientId;
    use tern_protocol::participant::KnownSum;

    #[test]
    fn what_was_saved_last_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunId([7; 16]);
        let store = ClientStore::open(folder.path(), &run, Durability::Power).unwrap();
        assert_eq!(store.load().unwrap(), SavedState::default());
        let body = b"body".to_vec();
        let mut kept = SavedState {
            residual: vec![0.1, -2.0],
            optimizer: Arc::new(OptimizerState { steps: 7, moments: vec![0.5, 0.25] }),
            history: History::default(),
            sums: vec![KnownSum {
                model: Digest([7; 32]),
                members: [ClientId([1; 32]), ClientId([2; 32])].into(),
            }],
            ended: Some(Ended { round: 4, model: Digest([6; 32]) }),
            pending: Some(Pending {
                turn: Turn::new(3, 2),
                digest: Digest::of(&body),
                body,
                samples: 5,
                metrics: Metrics::from([("loss".into(), 0.25)]),
                residual: vec![0.3, 1e-40],
                optimizer: Arc::new(OptimizerState { steps: 9, moments: vec![0.75, 0.125] }),
                included: b"with whom".to_vec(),
            }),
        };
        store.save(&kept).unwrap();
        let again = ClientStore::open(folder.path(), &run, Durability::Power).unwrap();
        assert_eq!(again.load().unwrap(), kept);
        // A file that was damaged since is written again.
        let moments = Digest::of(&Codec::full(&[0.5, 0.25])).to_string();
        std::fs::write(store.0.path.join(moments), b"").unwrap();
        assert!(store.load().is_err());
        store.save(&kept).unwrap();
        assert_eq!(store.load().unwrap(), kept);
        #[cfg(unix)]
        for file in std::fs::read_dir(&store.0.path).unwrap() {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "for its owner alone");
        }
        kept.pending = None;
        store.save(&kept).unwrap();
        assert_eq!(store.load().unwrap(), kept);
        // State, residual, moments and sums are all that is left.
        assert_eq!(std::fs::read_dir(&store.0.path).unwrap().count(), 4);
    }
}
