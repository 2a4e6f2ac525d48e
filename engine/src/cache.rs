//! Files in the user's cache folder: what is learned of a device once and may be deleted at any time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::AdapterSummary;

/// `TERN_CACHE`, or the platform's folder for caches, with `tern` in it.
pub(crate) fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("TERN_CACHE") {
        return Some(folder);
    }
    let folder = if cfg!(windows) {
        set("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        set("HOME").map(|home| home.join("Library").join("Caches"))
    } else {
        set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))
    };
    Some(folder?.join("tern"))
}

/// The name of an adapter's file.
pub(crate) fn file_name(adapter: &AdapterSummary, ending: &str) -> String {
    let text = format!("{} {} {}", adapter.name, adapter.backend, adapter.driver).to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    format!("{}.{ending}", text.chars().map(plain).take(120).collect::<String>())
}

/// FNV-1a (Fowler, Noll, Vo) of all parts, one after another.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    parts.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Writes a file whole, or not at all: another process may be reading.
pub(crate) fn write(file: &Path, content: &[u8]) -> std::io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let partial = file.with_extension(format!("{}-{number}.partial", std::process::id()));
    let written = std::fs::write(&partial, content).and_then(|()| std::fs::rename(&partial, file));
    if written.is_err() {
        // What is there of it helps nobody; it may be that nothing is.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// A file of one adapter and driver. Its first lines say so and have a checksum of the rest: a file
/// that is damaged, or of another driver or version of Tern, is as none.
#[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "what is kept is a GPU's"))]
pub(crate) struct Kept {
    file: PathBuf,
    heading: String,
}

#[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "what is kept is a GPU's"))]
impl Kept {
    /// `what` is a word for the content and the folder of its files.
    pub fn new(folder: &Path, what: &str, adapter: &AdapterSummary) -> Self {
        let heading = format!(
            "# Tern's {what} on this machine. May be deleted.\n# {} | {} | {} | {}\n# ",
            adapter.name,
            adapter.backend,
            adapter.driver,
            env!("CARGO_PKG_VERSION")
        );
        Kept { file: folder.join(what).join(file_name(adapter, what)), heading }
    }

    /// The content, if there is one of this adapter, driver and version that is whole.
    pub fn read(&self) -> Option<Vec<u8>> {
        let text = std::fs::read(&self.file).ok()?;
        let rest = text.strip_prefix(self.heading.as_bytes())?;
        let at = rest.iter().position(|byte| *byte == b'\n')?;
        let (sum, content) = (&rest[..at], &rest[at + 1..]);
        let whole = sum == Self::sum(content).as_bytes();
        if !whole {
            log::warn!("{} is damaged and left out", self.file.display());
        }
        whole.then(|| content.to_vec())
    }

    fn sum(content: &[u8]) -> String {
        format!("{:016x}", fingerprint([content]))
    }

    /// Replaces the content. That it can't be written is no error: what was learned holds for this
    /// process.
    pub fn write(&self, content: &[u8]) {
        let mut text = format!("{}{}\n", self.heading, Self::sum(content)).into_bytes();
        text.extend_from_slice(content);
        if let Err(e) = write(&self.file, &text) {
            log::warn!("not kept: {}: {e}", self.file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(driver: &str) -> AdapterSummary {
        AdapterSummary { driver: driver.into(), ..crate::Device::cpu().summary() }
    }

    /// FNV's published values.
    #[test]
    fn fingerprints_are_those_of_fnv_1a() {
        assert_eq!(fingerprint([&b""[..]]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint([&b"a"[..]]), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint([&b"foo"[..], b"bar"]), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_file_is_taken_whole_and_of_its_driver_alone() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path(), "trials", &adapter("1.0"));
        assert_eq!(kept.read(), None);
        let content: Vec<u8> = (0..=255).cycle().take(1000).collect();
        kept.write(&content);
        assert_eq!(kept.read().as_ref(), Some(&content));
        assert_eq!(Kept::new(folder.path(), "trials", &adapter("1.1")).read(), None);
        let text = std::fs::read(&kept.file).unwrap();
        for at in (0..text.len()).step_by(7) {
            let mut damaged = text.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&kept.file, &damaged).unwrap();
            assert_eq!(kept.read(), None, "byte {at}");
            std::fs::write(&kept.file, &text[..at]).unwrap();
            assert_eq!(kept.read(), None, "{at} bytes");
        }
        kept.write(b"anew");
        assert_eq!(kept.read().unwrap(), b"anew");
    }

    #[test]
    fn whoever_reads_while_others_write_finds_a_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path(), "trials", &adapter("1.0"));
        let contents: Vec<Vec<u8>> = (1..4u8).map(|n| vec![n; 5_000 * usize::from(n)]).collect();
        kept.write(&contents[0]);
        std::thread::scope(|scope| {
            for content in &contents {
                scope.spawn(|| (0..50).for_each(|_| kept.write(content)));
            }
            for _ in 0..200 {
                assert!(contents.contains(&kept.read().unwrap()));
            }
        });
        // Nothing of a write is left.
        assert_eq!(std::fs::read_dir(kept.file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let kept = Kept::new(file.path(), "trials", &adapter("1.0"));
        kept.write(b"nowhere");
        assert_eq!(kept.read(), None);
    }
}
