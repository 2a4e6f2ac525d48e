//! Data sets from files: text by speaker, tables, digits. Plain or gzip.
//!
//! ```
//! use tern_simulate::files::speeches;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("play.txt");
//! std::fs::write(&path, "@Ann\nhello\n@Bob\nhi\n@Ann\nbye\n")?;
//! // Each speaker is a client.
//! let found = speeches(&[path])?;
//! assert_eq!((found[0].name.as_str(), found[0].text.as_str()), ("Ann", "hello\nbye\n"));
//! assert_eq!(found.len(), 2);
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

pub use tern_host::csv::{BadLine, Header, Line, Reader, Record};
pub use tern_host::table::{Rows, Table};
pub use tern_host::text::{Text, read, read_text};
use tern_protocol::{Error, Result};

/// What one speaker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    /// The speaker, or the file without its extension.
    pub name: String,
    /// The lines, each with its end.
    pub text: String,
}

/// Files, and the files of folders, in the order of their names.
fn listed(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let failed = |error| Error::file(path, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().is_file() && !entry.file_name().to_string_lossy().starts_with('.') {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Text by speaker. In a file whose first line with text starts with `@`, each such line names
/// who speaks from there on; any other file is one speaker, named after it. Who occurs twice is
/// one speaker. Blank lines are left out.
///
/// # Errors
/// [`Error::File`] for files that can't be read, a line that isn't UTF-8, or no text.
pub fn speeches(paths: &[PathBuf]) -> Result<Vec<Speech>> {
    let mut speeches: Vec<Speech> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for path in paths {
        for file in listed(path)? {
            let Text { text, bad } = read_text(&file)?;
            if let Some(line) = bad.first() {
                return Err(Error::file(&file, format!("line {line}: not UTF-8")));
            }
            let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
            let tagged = lines.peek().is_some_and(|line| line.starts_with('@'));
            let stem = file.file_name().unwrap_or_default().to_string_lossy();
            let mut name = stem.split('.').next().unwrap_or_default().to_owned();
            for line in lines {
                if let Some(tag) = line.strip_prefix('@').filter(|_| tagged) {
                    name = tag.trim().to_owned();
                    continue;
                }
                let at = *places.entry(name.clone()).or_insert_with(|| {
                    speeches.push(Speech { name: name.clone(), text: String::new() });
                    speeches.len() - 1
                });
                speeches[at].text.push_str(line.trim_end());
                speeches[at].text.push('\n');
            }
        }
    }
    if speeches.is_empty() {
        let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::file(Path::new(&names.join(", ")), "no text"));
    }
    Ok(speeches)
}

/// Images and labels in IDX files, the largest value of a pixel as 1.
///
/// # Errors
/// [`Error::File`] for another format or numbers of images and labels that differ.
pub fn digits(images: &Path, labels: &Path) -> Result<Rows> {
    Ok(digits_by(images, labels, None)?.0)
}

/// [`digits`] with another value of a pixel as 1, so that no image changes how the others are
/// scaled; and the value that was taken.
///
/// # Errors
/// As [`digits`].
pub fn digits_by(images: &Path, labels: &Path, one: Option<u8>) -> Result<(Rows, u8)> {
    let (shape, pixels) = idx(images)?;
    let (_, labels_read) = idx(labels)?;
    let rows = shape[0];
    if labels_read.len() != rows {
        let reason = format!("{} labels for {rows} images", labels_read.len());
        return Err(Error::file(labels, reason));
    }
    let one = one.or(pixels.iter().copied().max()).unwrap_or(0).max(1);
    let classes = labels_read.iter().copied().max().unwrap_or(0);
    let rows = Rows {
        features: pixels.iter().map(|pixel| f32::from(*pixel) / f32::from(one)).collect(),
        width: shape[1..].iter().product(),
        labels: labels_read.iter().map(|label| u32::from(*label)).collect(),
        classes: (0..=classes).map(|class| class.to_string()).collect(),
    };
    Ok((rows, one))
}

/// Shape and bytes of an IDX file of bytes.
fn idx(path: &Path) -> Result<(Vec<usize>, Vec<u8>)> {
    let bytes = read(path)?;
    let bad = || Error::file(path, "no IDX file of bytes");
    let Some(([0, 0, 8, dimensions], rest)) = bytes.split_first_chunk() else { return Err(bad()) };
    let Some((sizes, data)) = rest.split_at_checked(4 * usize::from(*dimensions)) else {
        return Err(bad());
    };
    let shape: Vec<usize> =
        sizes.as_chunks::<4>().0.iter().map(|size| u32::from_be_bytes(*size) as usize).collect();
    let pixels = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    // Without samples the other sizes could be anything.
    if shape.is_empty() || data.is_empty() || pixels != Some(data.len()) {
        return Err(bad());
    }
    Ok((shape, data.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn speakers_are_gathered_over_files() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "a.txt", b"@A\none\n\ntwo\n@B\nthree\n");
        write(&folder, "b.txt", b"@B\nfour\n");
        write(&folder, "c.txt", b"no tag\n@A is a word here\n");
        let found = speeches(&[folder.path().to_path_buf()]).unwrap();
        let pairs: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.text.as_str())).collect();
        let expected =
            [("A", "one\ntwo\n"), ("B", "three\nfour\n"), ("c", "no tag\n@A is a word here\n")];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn lines_that_are_not_utf8_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, "t.txt", b"\xef\xbb\xbf@A\none\nt\xffo\n\xc3\nfive\n");
        let error = speeches(&[path]).unwrap_err().to_string();
        assert!(error.ends_with("t.txt: line 3: not UTF-8"), "{error}");
    }

    #[test]
    fn digits_are_scaled() {
        let folder = tempfile::tempdir().unwrap();
        let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[0, 16, 4, 8]];
        let images = write(&folder, "i", &images.concat());
        let labels = write(&folder, "l", &[0, 0, 8, 1, 0, 0, 0, 2, 3, 0]);
        let rows = digits(&images, &labels).unwrap();
        assert_eq!((rows.width, rows.classes.len()), (2, 4));
        assert_eq!(rows.features, [0.0, 1.0, 0.25, 0.5]);
        assert_eq!(rows.labels, [3, 0]);
        let (rows, one) = digits_by(&images, &labels, Some(32)).unwrap();
        assert_eq!((rows.features[1], one), (0.5, 32));
        let short = write(&folder, "s", &[0, 0, 8, 1, 0, 0, 0, 2, 3]);
        assert!(digits(&images, &short).is_err());
    }
}
