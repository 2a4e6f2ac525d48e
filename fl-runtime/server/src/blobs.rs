//! Bodies in a folder. A file is whole or not there: it is written beside and renamed.
//!
//! `models/<digest>` holds models and strategies' states, `uploads/<round>-<attempt>-<client>`
//! accepted updates, `partial/` what is not complete. Files are named after what they are for, so
//! that one body sent by two clients is two files.
//!
//! ```
//! use tern_host::files::{Durability, Faults};
//! use tern_protocol::{ClientId, Turn};
//! use tern_server::blobs::Blobs;
//!
//! # fn main() -> tern_protocol::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let blobs = Blobs::open(folder.path(), Durability::Process, 100, Faults::default())?;
//! let model = blobs.put_model(b"a model")?;
//! assert_eq!(blobs.read_model(&model)?, b"a model");
//!
//! // An update comes in by parts.
//! let (turn, client) = (Turn::new(1, 1), ClientId([1; 32]));
//! blobs.partial(turn, &client)?.append(b"an up")?;
//! let mut partial = blobs.partial(turn, &client)?;
//! partial.append(b"date")?;
//! blobs.accept(&partial, turn, &client)?;
//! assert_eq!(std::fs::read(blobs.upload_path(turn, &client)).unwrap(), b"an update");
//! // No more than the quota is stored.
//! assert!(blobs.put_model(&[0; 100]).is_err());
//! # Ok(())
//! # }
//! ```

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use tern_protocol::{ClientId, Digest, Error, Result, Turn};

use tern_host::files::{Durability, Faults, rename};

type Uploads = BTreeSet<(Turn, ClientId)>;

/// The folder of a run's bodies. Clones share the count of its bytes.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: PathBuf,
    durability: Durability,
    used: Arc<AtomicU64>,
    /// Held by what removes files, and shared by uploads that come in: the bytes of a file are
    /// given back once.
    gate: Arc<RwLock<()>>,
    /// Held by who writes a model, which has one place before it is whole.
    writing: Arc<Mutex<()>>,
    /// Accepted updates of which it isn't known yet whether they are kept, so that those of earlier
    /// rounds needn't be looked at again; unknown itself before the folder was looked through.
    unsettled: Arc<Mutex<Option<Uploads>>>,
    most: u64,
    faults: Faults,
}

impl Blobs {
    /// Opens or makes the folder. Writes that would take it above `most` bytes fail as they do
    /// on a full disk.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(folder: &Path, durability: Durability, most: u64, faults: Faults) -> Result<Self> {
        let mut used = 0;
        for name in ["models", "uploads", "partial"] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).map_err(|e| Error::file(&path, e))?;
            for entry in std::fs::read_dir(&path).map_err(|e| Error::file(&path, e))? {
                let entry = entry.map_err(|e| Error::file(&path, e))?;
                used += entry.metadata().map_err(|e| Error::file(&path, e))?.len();
            }
        }
        let used = Arc::new(AtomicU64::new(used));
        let (folder, gate, writing) = (folder.to_path_buf(), Arc::default(), Arc::default());
        let unsettled = Arc::default();
        Ok(Blobs { folder, durability, used, gate, writing, unsettled, most, faults })
    }

    /// Where a model is.
    pub fn model_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("models").join(digest.to_string())
    }

    /// Where an accepted update is.
    pub fn upload_path(&self, turn: Turn, client: &ClientId) -> PathBuf {
        self.folder.join("uploads").join(name(turn, client))
    }

    fn partial_path(&self, turn: Turn, client: &ClientId) -> PathBuf {
        self.folder.join("partial").join(name(turn, client))
    }

    /// Takes this many bytes of the quota.
    fn reserve(&self, path: &Path, bytes: u64) -> Result<()> {
        self.faults.check().map_err(|reason| Error::file(path, reason))?;
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|_| ()).map_err(|used| {
            Error::file(path, format!("no space: {used} bytes used, at most {}", self.most))
        })
    }

    fn release(&self, bytes: u64) {
        // Files that others took away may be given back twice.
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Whether a file was removed; it stays as it is while the guard lives.
    fn removed(&self, path: &Path) -> (bool, RwLockReadGuard<'_, ()>) {
        let guard = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        (!path.exists(), guard)
    }

    /// Bytes of all bodies.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Stores a model under its digest, in place of a file that is damaged.
    ///
    /// # Errors
    /// [`Error::File`]; nothing is left of it then.
    pub fn put_model(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.model_path(&digest);
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // What isn't whole yet must not be taken for what is left of an upload.
        let _stays = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let replaced = match self.read_model(&digest) {
            Ok(_) => return Ok(digest),
            Err(_) => std::fs::metadata(&path).map_or(0, |data| data.len()),
        };
        let partial = self.folder.join("partial").join(format!("model-{digest}"));
        self.reserve(&path, bytes.len() as u64)?;
        let written = File::create(&partial)
            .and_then(|mut file| file.write_all(bytes).map(|()| file))
            .map_err(|e| Error::file(&partial, e))
            .and_then(|file| self.keep(&file, &partial, &path));
        if written.is_err() {
            self.release(bytes.len() as u64);
            // It may not even be there.
            let _ = std::fs::remove_file(&partial);
        }
        written.map(|()| {
            self.release(replaced);
            digest
        })
    }

    /// Reads a model.
    ///
    /// # Errors
    /// [`Error::File`], also for bytes that have another digest.
    pub fn read_model(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.model_path(digest);
        let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
        match Digest::of(&bytes) {
            made if made == *digest => Ok(bytes),
            made => {
                let reason =
                    format!("{} bytes of SHA-256 {made}, expected that of its name", bytes.len());
                Err(Error::file(&path, reason))
            }
        }
    }

    /// Renames a written file, flushed first if power may fail.
    fn keep(&self, file: &File, from: &Path, to: &Path) -> Result<()> {
        self.faults.check().map_err(|reason| Error::file(to, reason))?;
        rename(file, from, to, self.durability)
    }

    /// Opens the partial upload of a client, and says how long it is.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn partial(&self, turn: Turn, client: &ClientId) -> Result<Partial> {
        let path = self.partial_path(turn, client);
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = file.map_err(|e| Error::file(&path, e))?;
        let len = file.metadata().map_err(|e| Error::file(&path, e))?.len();
        Ok(Partial { blobs: self.clone(), path, file, len })
    }

    /// Makes a complete partial upload an accepted one.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn accept(&self, partial: &Partial, turn: Turn, client: &ClientId) -> Result<()> {
        let path = self.upload_path(turn, client);
        // One may be left of an upload that was stored, but not noted.
        let replaced = std::fs::metadata(&path).map_or(0, |data| data.len());
        self.keep(&partial.file, &partial.path, &path)?;
        self.release(replaced);
        if let Some(unsettled) = self.unsettled().as_mut() {
            unsettled.insert((turn, *client));
        }
        Ok(())
    }

    fn unsettled(&self) -> MutexGuard<'_, Option<Uploads>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an accepted update; `None` if it is gone. Its bytes are checked by whoever reads them.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn upload(&self, turn: Turn, client: &ClientId) -> Result<Option<File>> {
        let path = self.upload_path(turn, client);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file(&path, e)),
        }
    }

    /// The run's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what is not to be kept of a folder.
    fn sweep(&self, folder: &str, mut keep: impl FnMut(&str) -> bool) -> Result<()> {
        let path = self.folder.join(folder);
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        for entry in std::fs::read_dir(&path).map_err(|e| Error::file(&path, e))? {
            let entry = entry.map_err(|e| Error::file(&path, e))?;
            if !entry.file_name().to_str().is_some_and(&mut keep) {
                self.remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let bytes = std::fs::metadata(path).map_or(0, |data| data.len());
        self.faults.check().map_err(|reason| Error::file(path, reason))?;
        match std::fs::remove_file(path) {
            Ok(()) => self.release(bytes),
            // Renamed or removed meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::file(path, e)),
        }
        Ok(())
    }

    /// Removes models other than these.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sweep_models(&self, kept: &[Digest]) -> Result<()> {
        self.sweep("models", |name| name.parse().is_ok_and(|digest| kept.contains(&digest)))
    }

    /// Removes partial uploads of attempts before `open`, and accepted ones unless `kept` has
    /// their attempt, which it is asked once.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sweep_uploads(&self, open: Turn, kept: impl Fn(Turn) -> bool) -> Result<()> {
        self.sweep("partial", |name| parsed(name).is_some_and(|(turn, _)| turn >= open))?;
        let Some(mut left) = self.unsettled().clone() else {
            let mut left = Uploads::new();
            self.sweep("uploads", |name| {
                let Some((turn, client)) = parsed(name) else { return false };
                left.extend((turn >= open).then_some((turn, client)));
                turn >= open || kept(turn)
            })?;
            *self.unsettled() = Some(left);
            return Ok(());
        };
        left.retain(|(turn, _)| *turn < open);
        for (turn, client) in left {
            if !kept(turn) {
                let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
                self.remove(&self.upload_path(turn, &client))?;
            }
            if let Some(unsettled) = self.unsettled().as_mut() {
                unsettled.remove(&(turn, client));
            }
        }
        Ok(())
    }
}

fn name(turn: Turn, client: &ClientId) -> String {
    format!("{}-{}-{client}", turn.round, turn.attempt)
}

/// Back from a name.
fn parsed(name: &str) -> Option<(Turn, ClientId)> {
    let mut parts = name.splitn(3, '-');
    let mut number = || parts.next()?.parse().ok();
    let turn = Turn::new(number()?, number()?);
    Some((turn, parts.next()?.parse().ok()?))
}

/// An upload that is coming in.
#[derive(Debug)]
pub struct Partial {
    blobs: Blobs,
    path: PathBuf,
    file: File,
    len: u64,
}

impl Partial {
    /// Bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file once more, from its start.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(|e| Error::file(&self.path, e))
    }

    /// Appends.
    ///
    /// # Errors
    /// [`Error::File`]; the file has its old length then.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let (removed, _guard) = self.blobs.removed(&self.path);
        if removed {
            return Err(Error::file(&self.path, "removed, as its attempt is over"));
        }
        let count = bytes.len() as u64;
        self.blobs.reserve(&self.path, count)?;
        if let Err(error) = self.file.write_all(bytes) {
            self.blobs.release(count);
            self.file.set_len(self.len).map_err(|e| Error::file(&self.path, e))?;
            return Err(Error::file(&self.path, error));
        }
        self.len += count;
        Ok(())
    }

    /// The file, from its start.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn reader(&mut self) -> Result<&File> {
        self.file.seek(SeekFrom::Start(0)).map_err(|e| Error::file(&self.path, e))?;
        Ok(&self.file)
    }

    /// Forgets what came in.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn clear(&mut self) -> Result<()> {
        let (removed, _guard) = self.blobs.removed(&self.path);
        self.file.set_len(0).map_err(|e| Error::file(&self.path, e))?;
        if !removed {
            self.blobs.release(self.len);
        }
        self.len = 0;
        Ok(())
    }
}
