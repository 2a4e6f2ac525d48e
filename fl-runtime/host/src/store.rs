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
use tern_protocol::{Digest, Error, Result, RunId, Turn};
use tern_secagg::History;

use crate::files::{self, Durability};

/// The folder of a client in one run.
#[derive(Clone, Debug)]
pub struct ClientStore {
    folder: PathBuf,
    durability: Durability,
}

/// `state.json`
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    residual: Option<Digest>,
    #[serde(default)]
    optimizer: OptimizerFile,
    history: History,
    sums: Option<Digest>,
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
        let folder = folder.join(run.to_string());
        std::fs::create_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
        Ok(ClientStore { folder, durability })
    }

    fn state_path(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    fn put(&self, bytes: &[u8]) -> Result<Option<Digest>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let digest = Digest::of(bytes);
        let path = self.folder.join(digest.to_string());
        // One that is there may be damaged.
        if self.get(Some(digest)).is_err() {
            files::replace(&path, bytes, self.durability)?;
        }
        Ok(Some(digest))
    }

    fn get(&self, digest: Option<Digest>) -> Result<Vec<u8>> {
        let Some(digest) = digest else { return Ok(Vec::new()) };
        let path = self.folder.join(digest.to_string());
        let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
        if Digest::of(&bytes) != digest {
            return Err(Error::file(&path, "its bytes have another SHA-256"));
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
        let history = kept.history.clone();
        let path = self.state_path();
        let sums = match kept.sums.is_empty() {
            true => Vec::new(),
            false => serde_json::to_vec(&kept.sums).map_err(|e| Error::file(&path, e))?,
        };
        let sums = self.put(&sums)?;
        let state = State { residual, optimizer, history, sums, pending: pending.transpose()? };
        let json = serde_json::to_vec_pretty(&state).map_err(|e| Error::file(&path, e))?;
        files::replace(&path, &json, self.durability)?;
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
        let folder = &self.folder;
        for entry in std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))? {
            let path = entry.map_err(|e| Error::file(folder, e))?.path();
            let digest = path.file_name().and_then(|name| name.to_str()?.parse::<Digest>().ok());
            let partial = path.extension().is_some_and(|end| end == files::PARTIAL);
            if partial || digest.is_some_and(|digest| !kept.contains(&Some(digest))) {
                std::fs::remove_file(&path).map_err(|e| Error::file(&path, e))?;
            }
        }
        Ok(())
    }

    /// What a client stored last; nothing if it is new.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read.
    pub fn load(&self) -> Result<SavedState> {
        let path = self.state_path();
        let json = match std::fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(SavedState::default());
            }
            Err(error) => return Err(Error::file(&path, error)),
        };
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
                .map_err(|e| Error::file(&self.folder.join(digest.to_string()), e))?,
            None => Vec::new(),
        };
        Ok(SavedState { residual, optimizer, history: state.history, sums, pending })
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
        std::fs::write(store.folder.join(moments), b"").unwrap();
        assert!(store.load().is_err());
        store.save(&kept).unwrap();
        assert_eq!(store.load().unwrap(), kept);
        #[cfg(unix)]
        for file in std::fs::read_dir(&store.folder).unwrap() {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "for its owner alone");
        }
        kept.pending = None;
        store.save(&kept).unwrap();
        assert_eq!(store.load().unwrap(), kept);
        // State, residual, moments and sums are all that is left.
        assert_eq!(std::fs::read_dir(&store.folder).unwrap().count(), 4);
    }
}
