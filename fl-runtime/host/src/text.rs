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
use std::io::Read;
use std::path::{Path, PathBuf};

use tern_protocol::{Error, Result};

use crate::csv::{self, BadLine, Record};

/// A file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Without a byte order mark; what isn't UTF-8 is replaced by `\u{fffd}`.
    pub text: String,
    /// The numbers, from 1, of the lines that aren't UTF-8.
    pub bad: BTreeSet<usize>,
}

/// A file's bytes, unpacked if they are gzip.
///
/// # Errors
/// [`Error::File`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| Error::file(path, error))?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice())
        .read_to_end(&mut unpacked)
        .map_err(|error| Error::file(path, format!("damaged gzip: {error}")))?;
    Ok(unpacked)
}

/// Splits a file's comma-separated values: [`csv::records`].
pub fn records(file: &Text) -> Vec<std::result::Result<Record, BadLine>> {
    csv::records(&file.text, &file.bad)
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

/// The file itself, or those of a folder with this extension, plain or gzip, in the order of their
/// names.
///
/// # Errors
/// [`Error::File`] for what can't be read, and a folder without such files.
pub fn listed(path: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let failed = |reason: std::io::Error| Error::file(path, reason);
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.into()]);
    }
    let ends = [format!(".{extension}"), format!(".{extension}.gz")];
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ends.iter().any(|end| name.ends_with(end)) {
            files.push(entry.path());
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Error::file(path, format!("a folder without .{extension} files"))),
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
        let error = listed(folder.path(), "csv").unwrap_err().to_string();
        assert!(error.ends_with("without .csv files"), "{error}");
        for name in ["b.csv", "a.csv.gz", "c.txt"] {
            std::fs::write(path(name), "").unwrap();
        }
        assert_eq!(listed(folder.path(), "csv").unwrap(), [path("a.csv.gz"), path("b.csv")]);
        assert_eq!(listed(&path("c.txt"), "csv").unwrap(), [path("c.txt")]);
        assert!(listed(&path("d.csv"), "csv").is_err());
    }

    /// A quote that isn't closed or bytes that aren't UTF-8 cost their line alone.
    #[test]
    fn bad_lines_end_where_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let split = |bytes: &[u8]| {
            let path = folder.path().join("t.csv");
            std::fs::write(&path, bytes).unwrap();
            let records = records(&read_text(&path).unwrap());
            let said = |fields: &[String]| fields.join("|");
            let records = records.iter().map(|record| match record {
                Ok(Record { line, fields }) => format!("{line} {}", said(fields)),
                Err(BadLine { line, reason, fields }) => {
                    format!("{line} {} ({reason})", said(fields))
                }
            });
            records.collect::<Vec<_>>()
        };
        let open = "(a quote that isn't closed)";
        // To the file's end, to another quote, and on a record's second line.
        assert_eq!(split(b"a,\"b,c\n1,2\n"), [format!("1 a|b|c {open}"), "2 1|2".into()]);
        let expected = [format!("1 a|b|c {open}"), "2 1|2".into(), "3 x, y|3".into()];
        assert_eq!(split(b"a,\"b,\"c\"\n1,2\n\"x, y\",3"), expected);
        let expected = [format!("2 x\ny|b|c {open}"), "3 1|2".into()];
        assert_eq!(split(b"\"x\ny\",\"b,c\n1,2\n"), expected);
        assert_eq!(split(b"\"\n"), [format!("1  {open}")]);
        // A quote inside a value is one; around it there may be spaces.
        assert_eq!(split(b"5\" pipe, \"a, b\" ,\"\"\r\n"), ["1 5\" pipe|a, b|"]);
        let expected = ["1 a|\u{fffd} (not UTF-8)", "2 1|2", "4 x\n\u{fffd}|3 (not UTF-8)"];
        assert_eq!(split(b"a,\xff\n1,2\n\"x\n\xff\",3"), expected);
    }
}
