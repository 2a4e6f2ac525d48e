//! What survives the process: the server's journal and bodies, a client's state.

pub mod blobs;
pub mod client;
#[cfg(feature = "server")]
pub mod journal;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Error;
use crate::identity::write_new_private;

/// How files end that are not written to theirs.
pub(crate) const PARTIAL: &str = "partial";

/// Writes a file at once, by way of another beside it: it is there whole, or as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> crate::Result<()> {
    let partial = path.with_added_extension(PARTIAL);
    std::fs::write(&partial, bytes).map_err(|e| Error::file(&partial, e))?;
    std::fs::rename(&partial, path).map_err(|e| Error::file(path, e))
}

/// The same with a file that only its owner may read, flushed to the disk.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> crate::Result<()> {
    let partial = path.with_added_extension(PARTIAL);
    match std::fs::remove_file(&partial) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::file(&partial, e)),
        _ => {}
    }
    write_new_private(&partial, bytes).map_err(|e| Error::file(&partial, e))?;
    std::fs::rename(&partial, path).map_err(|e| Error::file(path, e))
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

    fn check(&self) -> Result<(), &'static str> {
        let Some(left) = &self.0 else { return Ok(()) };
        let down = |left: u32| left.checked_sub(1);
        match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down) {
            Ok(1) => Err("a fault was asked for"),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
