//! Text of files, plain or gzip.
//!
//! ```
//! use tern_host::text::read_text;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("words.txt");
//! std::fs::write(&path, b"one\ntw\xff\n")?;
//! let found = read_text(&path)?;
//! assert_eq!((found.text.as_str(), found.bad.first()), ("one\ntw\u{fffd}\n", Some(&2)));
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use tern_protocol::{Error, Result};

/// A file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Without a byte order mark; what isn't UTF-8 is replaced by `\u{fffd}`.
    pub text: String,
    /// The numbers, from 1, of the lines that aren't UTF-8.
    pub bad: BTreeSet<usize>,
}

/// A file's bytes as they are read, unpacked if they are gzip.
///
/// # Errors
/// [`Error::File`].
pub fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let start = file.fill_buf().map_err(|error| Error::file(path, error))?;
    Ok(match start.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
        false => Box::new(file),
    })
}

/// What reading a file failed by.
pub(crate) fn failed(path: &Path, error: &std::io::Error) -> Error {
    let unpacking = matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData);
    match unpacking || error.kind() == ErrorKind::UnexpectedEof {
        true => Error::file(path, format!("damaged gzip: {error}")),
        false => Error::file(path, error.to_string()),
    }
}

/// A file's bytes, unpacked if they are gzip.
///
/// # Errors
/// [`Error::File`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| failed(path, &error))?;
    Ok(bytes)
}

/// A file's text, unpacked if it is gzip. Bytes that aren't UTF-8 cost their lines alone.
///
/// # Errors
/// [`Error::File`].
pub fn read_text(path: &Path) -> Result<Text> {
    let bytes = read(path)?;
    let lines = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    let bad = lines.filter(|(_, line)| std::str::from_utf8(line).is_err());
    let bad = bad.map(|(number, _)| number).collect();
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    Ok(Text { text, bad })
}

/// The file itself, or those of a folder with one of some extensions, plain or gzip, in the order
/// of their names.
///
/// # Errors
/// [`Error::File`] for what can't be read, and a folder without such files.
pub fn listed(path: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let failed = |reason: std::io::Error| Error::file(path, reason);
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.into()]);
    }
    let is_one = |name: &str| {
        let name = name.strip_suffix(".gz").unwrap_or(name);
        let end = name.rsplit_once('.').map(|(_, end)| end);
        end.is_some_and(|end| extensions.contains(&end))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_one(&name) {
            files.push(entry.path());
        }
    }
    files.sort();
    match files.is_empty() {
        true => {
            Err(Error::file(path, format!("a folder without .{} files", extensions.join(" or ."))))
        }
        false => Ok(files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_not_utf8_are_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.txt");
        std::fs::write(&path, b"\xef\xbb\xbf@A\none\nt\xffo\n\xc3\nfive\n").unwrap();
        let Text { text, bad } = read_text(&path).unwrap();
        assert_eq!(text, "@A\none\nt\u{fffd}o\n\u{fffd}\nfive\n");
        assert_eq!(bad, [3, 4].into());
        std::fs::write(&path, b"\x1f\x8b\x08cut").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("t.txt: damaged gzip"), "{error}");
    }

    #[test]
    fn files_of_a_folder_are_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let error = listed(folder.path(), &["csv"]).unwrap_err().to_string();
        assert!(error.ends_with("without .csv files"), "{error}");
        for name in ["b.csv", "a.csv.gz", "c.txt"] {
            std::fs::write(path(name), "").unwrap();
        }
        assert_eq!(listed(folder.path(), &["csv"]).unwrap(), [path("a.csv.gz"), path("b.csv")]);
        assert_eq!(listed(&path("c.txt"), &["csv"]).unwrap(), [path("c.txt")]);
        assert!(listed(&path("d.csv"), &["csv"]).is_err());
    }
}
