//! Folders and files that one process owns at a time.
//!
//! ```
//! use tern_host::folder::FolderLock;
//!
//! # fn main() -> tern_protocol::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let lock = FolderLock::take(folder.path())?;
//! let error = FolderLock::take(folder.path()).unwrap_err();
//! assert!(error.to_string().contains("in use by"), "{error}");
//!
//! drop(lock);
//! assert!(FolderLock::take(folder.path()).is_ok());
//! # Ok(())
//! # }
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use tern_protocol::{Error, Result};

/// The file in a folder that is locked.
const FILE: &str = "lock";

/// A folder that is nobody else's, in this process or another, until this is dropped or the process
/// ends, however it ends: the lock is the kernel's. The file stays.
#[derive(Debug)]
pub struct FolderLock {
    // Unlocked by being closed.
    _file: File,
}

impl FolderLock {
    /// Takes a folder that is there.
    ///
    /// # Errors
    /// [`Error::File`] if it is in use, naming by whom, or can't be written to.
    pub fn take(folder: &Path) -> Result<Self> {
        Ok(FolderLock { _file: lock(&folder.join(FILE), folder, "a folder")? })
    }
}

/// Likewise a file that is replaced as a whole, by `<file>.lock` beside it. The file itself needn't
/// be there.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    // Unlocked by being closed.
    _file: File,
}

impl FileLock {
    /// Takes a file in a folder that is there.
    ///
    /// # Errors
    /// As [`FolderLock::take`].
    pub fn take(path: &Path) -> Result<Self> {
        let file = lock(&path.with_added_extension(FILE), path, "a file")?;
        Ok(FileLock { path: path.to_path_buf(), _file: file })
    }

    /// The file that is taken.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Locks the file at `path`, which stands for `owned`, and writes into it by whom.
fn lock(path: &Path, owned: &Path, what: &str) -> Result<File> {
    let failed = |reason: std::io::Error| Error::file(path, reason);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Where locks keep others from reading, it stays unnamed.
            let named = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if named { holder.trim() } else { "another process" };
            let reason = format!("in use by {holder}, expected {what} of its own");
            return Err(Error::file(owned, reason));
        }
        Err(TryLockError::Error(reason)) => return Err(failed(reason)),
    }
    // One that is there may be of a time when others could read it.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name).unwrap_or_default();
    let holder = format!("process {} ({})\n", std::process::id(), name.display());
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    file.write_all(holder.as_bytes()).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_who_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        if cfg!(unix) {
            assert!(
                error.contains(&format!("in use by process {}", std::process::id())),
                "{error}"
            );
        }
        drop(lock);
        // What is left behind, by a longer name say, is no lock.
        std::fs::write(folder.path().join(FILE), "process 123456789 (of long ago)\n").unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(FILE));
        assert!(cfg!(windows) || !text.unwrap().contains("long ago"));
        drop(lock);
        let missing = FolderLock::take(&folder.path().join("no/folder")).unwrap_err();
        assert!(missing.to_string().contains("no/folder"));
    }

    #[test]
    fn a_file_has_one_owner_while_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.bin");
        let lock = FileLock::take(&path).unwrap();
        crate::files::replace(&path, b"state", crate::files::Durability::None).unwrap();
        let error = FileLock::take(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: in use by", path.display())), "{error}");
        let other = FileLock::take(&folder.path().join("device")).unwrap();
        assert!(other.path().ends_with("device"));
        drop(lock);
        assert!(FileLock::take(&path).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn who_owns_a_folder_is_nobody_elses_business() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        drop(FolderLock::take(folder.path()).unwrap());
        assert_eq!(mode(), 0o600);
        // One that an earlier version left.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let _lock = FolderLock::take(folder.path()).unwrap();
        assert_eq!(mode(), 0o600);
    }
}
