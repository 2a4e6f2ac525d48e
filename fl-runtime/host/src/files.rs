//! Files that survive: written whole or not at all, as durably as asked for.
//!
//! ```
//! use tern_host::files::{Durability, open_log, replace, write_new_private};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("state.json");
//! replace(&path, b"{}", Durability::Power)?;
//! replace(&path, b"{\"round\": 1}", Durability::Power)?;
//! assert_eq!(std::fs::read(&path)?, b"{\"round\": 1}");
//! // Nothing else is left in the folder.
//! assert_eq!(std::fs::read_dir(&folder)?.count(), 1);
//! // A line that a process which was killed left unfinished is cut off.
//! let log = folder.path().join("log");
//! std::fs::write(&log, "one\ntwo\nthr")?;
//! let mut lines = Vec::new();
//! open_log(&log, |line| Some(lines.push(line.to_owned())))?;
//! assert_eq!((lines.len(), std::fs::read(&log)?.len()), (2, 8));
//! # std::fs::remove_file(&log)?;
//! // And what must be new isn't written over.
//! assert!(write_new_private(&path, b"a key").is_err());
//! # Ok(())
//! # }
//! ```

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tern_protocol::{Error, Result};

/// How files end that are not written to theirs.
pub const PARTIAL: &str = "partial";

/// Writes a file at once, by way of another beside it: it is there whole, or as it was. Only its
/// owner may read it.
///
/// # Errors
/// [`Error::File`].
pub fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let partial = path.with_added_extension(PARTIAL);
    match std::fs::remove_file(&partial) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::file(&partial, e)),
        _ => {}
    }
    create_private(&partial)
        .and_then(|mut file| file.write_all(bytes).map(|()| file))
        .map_err(|e| Error::file(&partial, e))
        .and_then(|file| rename(&file, &partial, path, durability))
}

/// Renames a written file, flushed first if power may fail.
///
/// # Errors
/// [`Error::File`].
pub fn rename(file: &File, from: &Path, to: &Path, durability: Durability) -> Result<()> {
    if durability == Durability::Power {
        file.sync_all().map_err(|e| Error::file(from, e))?;
    }
    std::fs::rename(from, to).map_err(|e| Error::file(to, e))?;
    match to.parent() {
        Some(folder) if durability == Durability::Power => sync_folder(folder),
        _ => Ok(()),
    }
}

/// Flushes the names that lie in a folder.
///
/// # Errors
/// [`Error::File`].
pub fn sync_folder(folder: &Path) -> Result<()> {
    // Elsewhere folders can't be opened, and names are flushed with the file.
    if cfg!(unix) {
        let here = folder.as_os_str().is_empty();
        let folder = if here { Path::new(".") } else { folder };
        let flushed = File::open(folder).and_then(|folder| folder.sync_all());
        flushed.map_err(|e| Error::file(folder, e))?;
    }
    Ok(())
}

/// Opens a file to which lines are added, and reads them, without their ends, until `take` says
/// `None`. The rest is cut off, with a part of a line that a process which was killed may have left.
///
/// # Errors
/// [`Error::File`].
pub fn open_log(path: &Path, mut take: impl FnMut(&str) -> Option<()>) -> Result<File> {
    let failed = |reason: std::io::Error| Error::file(path, reason);
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).open(path).map_err(failed)?;
    let mut whole = 0;
    let mut reader = BufReader::new(&file);
    let mut line = String::new();
    while reader.read_line(&mut line).map_err(failed)? > 0 {
        if line.strip_suffix('\n').and_then(&mut take).is_none() {
            break;
        }
        whole += line.len() as u64;
        line.clear();
    }
    file.set_len(whole).map_err(failed)?;
    Ok(file)
}

/// Writes a file that must not exist yet and that only its owner may read.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = create_private(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a file that only its owner may read, and that isn't there yet.
pub fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// What acknowledged data survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing for sure: for tests.
    None,
    /// The end of the process, `kill -9` included.
    #[default]
    Process,
    /// Loss of power: every body and transaction is flushed to the disk before it is
    /// acknowledged.
    Power,
}

/// Makes writes fail on demand, for tests of what comes after: an error, or the end of the
/// process between two writes.
#[derive(Clone, Debug, Default)]
pub struct Faults(Option<Arc<AtomicU32>>);

impl Faults {
    /// Counts writes down: the one that finds 1 fails; 0 lets all pass.
    pub fn counting(left: Arc<AtomicU32>) -> Self {
        Faults(Some(left))
    }

    /// Called before each write.
    ///
    /// # Errors
    /// If it is the one that fails.
    pub fn check(&self) -> std::result::Result<(), &'static str> {
        let Some(left) = &self.0 else { return Ok(()) };
        let down = |left: u32| left.checked_sub(1);
        match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down) {
            Ok(1) => Err("a fault was asked for"),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
