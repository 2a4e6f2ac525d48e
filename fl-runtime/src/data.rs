//! A client's samples from files: texts, or rows of numbers. Errors name the file and the line.
//!
//! ```
//! use tern_fl::data::read_rows;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("points.csv");
//! std::fs::write(&path, "x,y,class\n0.5,1,0\n2,-1,1\n")?;
//! let rows = read_rows(&path, "class")?;
//! assert_eq!((rows.width, rows.labels), (2, vec![0, 1]));
//! assert_eq!(rows.features, [0.5, 1.0, 2.0, -1.0]);
//! assert!(read_rows(&path, "z").unwrap_err().to_string().contains("no column `z`"));
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use tern_engine::IGNORE;
use tern_host::csv::{self, BadLine, Header};
use tern_protocol::tokens::Tokens;

/// Why a file's samples can't be used.
#[derive(Debug)]
pub struct DataError {
    /// The file or folder.
    pub file: PathBuf,
    /// The line, counted from 1; 0 if all of it is meant.
    pub line: usize,
    /// What is wrong and what was expected.
    pub reason: String,
}

impl Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DataError { file, line, reason } = self;
        match line {
            0 => write!(f, "{}: {reason}", file.display()),
            _ => write!(f, "{}:{line}: {reason}", file.display()),
        }
    }
}

impl std::error::Error for DataError {}

fn error(file: &Path, line: usize, reason: impl Display) -> DataError {
    DataError { file: file.into(), line, reason: reason.to_string() }
}

/// Rows of numbers with a class each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// `[N, width]`.
    pub features: Vec<f32>,
    /// Features a row.
    pub width: usize,
    /// `[N]`, classes from 0.
    pub labels: Vec<u32>,
}

impl Rows {
    /// Some of the rows.
    ///
    /// # Panics
    /// For a row that isn't there.
    pub fn chosen(&self, rows: &[usize]) -> Self {
        let features = |row: &usize| &self.features[row * self.width..][..self.width];
        Rows {
            features: rows.iter().flat_map(features).copied().collect(),
            width: self.width,
            labels: rows.iter().map(|row| self.labels[*row]).collect(),
        }
    }
}

/// Reads texts as tokens: of a file, or of the `.txt` files of a folder in order of their names.
///
/// # Errors
/// [`DataError`] for a file that can't be read or isn't UTF-8, for less than two characters in all,
/// and as of [`Tokens::check`].
pub fn read_texts(path: &Path, tokens: &Tokens) -> Result<Vec<Vec<u32>>, DataError> {
    let mut texts = Vec::new();
    for file in files(path, "txt")? {
        // As a file would be read that was written on the other system.
        texts.push(read(&file)?.replace("\r\n", "\n"));
    }
    tokens.check(texts.iter().map(String::as_str)).map_err(|reason| error(path, 0, reason))?;
    let texts: Vec<Vec<u32>> = texts.iter().map(|text| tokens.encode(text)).collect();
    match texts.iter().any(|text| text.len() > 1) {
        true => Ok(texts),
        false => Err(error(path, 0, "no text to learn from, expected two characters or more")),
    }
}

/// Reads rows: of a CSV file, or of the `.csv` files of a folder in order of their names. The
/// first line of each names the columns; `label` is the one with the class.
///
/// # Errors
/// [`DataError`] for a file that can't be read, two columns of one name, a line with another number
/// of values or one that is no number, columns that differ between files, and no row at all.
pub fn read_rows(path: &Path, label: &str) -> Result<Rows, DataError> {
    let mut rows = Rows::default();
    let mut columns: Option<Vec<String>> = None;
    for file in files(path, "csv")? {
        let text = read(&file)?;
        let at_line = |bad: BadLine| error(&file, bad.line, bad.reason);
        let mut records = csv::records(&text, &BTreeSet::new()).into_iter();
        let header = Header::read(&mut records).map_err(at_line)?;
        let names = header.names();
        let at = header.place(label).ok_or_else(|| {
            let reason = format!("no column `{label}`, expected one of {}", names.join(", "));
            error(&file, header.line(), reason)
        })?;
        if names.len() < 2 {
            let reason = "one column, expected features beside the class";
            return Err(error(&file, header.line(), reason));
        }
        if *columns.get_or_insert_with(|| names.to_vec()) != names {
            return Err(error(&file, header.line(), "other columns than the file before"));
        }
        rows.width = names.len() - 1;
        for record in records {
            let record = record.and_then(|record| header.fits(record)).map_err(at_line)?;
            row(&mut rows, &record.fields, (at, names))
                .map_err(|reason| error(&file, record.line, reason))?;
        }
    }
    match rows.labels.is_empty() {
        true => Err(error(path, 0, "no rows to learn from")),
        false => Ok(rows),
    }
}

fn row(rows: &mut Rows, fields: &[String], (at, names): (usize, &[String])) -> Result<(), String> {
    let values = fields.iter().map(|field| field.trim());
    for (i, (value, name)) in values.zip(names).enumerate() {
        if i == at {
            let class = value.parse().ok().filter(|class| *class != IGNORE);
            rows.labels.push(class.ok_or_else(|| {
                format!("{name} is `{value}`, expected a class: a whole number from 0")
            })?);
        } else {
            let number = value.parse().ok().filter(|x: &f32| x.is_finite());
            rows.features.push(
                number.ok_or_else(|| format!("{name} is `{value}`, expected a finite number"))?,
            );
        }
    }
    Ok(())
}

/// The file itself, or those of a folder with this extension.
fn files(path: &Path, extension: &str) -> Result<Vec<PathBuf>, DataError> {
    let failed = |reason: std::io::Error| error(path, 0, reason);
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.into()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|e| e == extension) {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(error(path, 0, format!("a folder without .{extension} files"))),
        false => Ok(files),
    }
}

fn read(file: &Path) -> Result<String, DataError> {
    let bytes = std::fs::read(file).map_err(|reason| error(file, 0, reason))?;
    let text = String::from_utf8(bytes).map_err(|reason| {
        let good = &reason.as_bytes()[..reason.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        error(file, line, "not UTF-8")
    })?;
    // Spreadsheets put a mark before UTF-8.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn texts_are_read_as_tokens() {
        let at = folder(&[("b.txt", b"b~"), ("a.txt", "a \r\né".as_bytes()), ("c.md", b"no")]);
        let a = at.path().join("a.txt");
        let bytes = read_texts(&a, &Tokens::Bytes).unwrap();
        assert_eq!(bytes, [vec![97, 32, 10, 0xc3, 0xa9]]);
        let error = read_texts(at.path(), &Tokens::Ascii).unwrap_err().to_string();
        assert!(error.contains("16.7 % ('é'), expected at most 1 %"), "{error}");
        std::fs::write(&a, "a \r\n").unwrap();
        let texts = read_texts(at.path(), &Tokens::Ascii).unwrap();
        assert_eq!(texts, [vec![67, 2, 1], vec![68, 96]]);
    }

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let at = folder(&[
            ("a.csv", b"x,\"class\",y\n1,0,2.5\n\n-3e1, 2 ,\"4\"\n"),
            ("b.csv", b"\xef\xbb\xbfx,class,y\r\n5,1,6\r\n"),
        ]);
        let commas = folder(&[("a.csv", b"\"x, in mm\",class\n1,2\n")]);
        assert_eq!(read_rows(commas.path(), "class").unwrap().features, [1.0]);
        let rows = read_rows(at.path(), "class").unwrap();
        assert_eq!((rows.width, rows.labels), (2, vec![0, 2, 1]));
        assert_eq!(rows.features, [1.0, 2.5, -30.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn errors_name_file_and_line() {
        let cases: [(&str, &[u8], &str); 12] = [
            ("a.csv", b"", "a.csv:1: empty"),
            ("a.csv", b"x,class,x\n1,2,3\n", "a.csv:1: columns 1 and 3 are both named `x`"),
            ("a.csv", b"x,y\n1,2\n", "a.csv:1: no column `class`, expected one of x, y"),
            ("a.csv", b"class\n1\n", "a.csv:1: one column"),
            ("a.csv", b"x,class\n1,2\n1\n", "a.csv:3: 1 values, expected 2"),
            ("a.csv", b"x,class\n\n\na,2\n", "a.csv:4: x is `a`"),
            ("a.csv", b"x,class\nNaN,2\n", "a.csv:2: x is `NaN`"),
            ("a.csv", b"x,class\n1,-1\n", "a.csv:2: class is `-1`"),
            ("a.csv", b"x,class\n1,4294967295\n", "a.csv:2: class is `4294967295`"),
            ("a.csv", b"x,class\n1,\xff\n", "a.csv:2: not UTF-8"),
            ("a.csv", b"x,class\n\"1,2\n", "a.csv:2: a quote that isn't closed"),
            ("a.txt", b"x,class\n", "without .csv files"),
        ];
        for (name, bytes, expected) in cases {
            let at = folder(&[(name, bytes)]);
            let error = read_rows(at.path(), "class").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
        let at = folder(&[("a.csv", b"x,class\n1,2\n"), ("b.csv", b"y,class\n1,2\n")]);
        let error = read_rows(at.path(), "class").unwrap_err().to_string();
        assert!(error.contains("b.csv:1: other columns"), "{error}");
        let at = folder(&[("a.txt", b"x")]);
        assert!(read_texts(at.path(), &Tokens::Ascii).unwrap_err().to_string().contains("two"));
        assert!(read_texts(&at.path().join("no"), &Tokens::Ascii).is_err());
    }
}
