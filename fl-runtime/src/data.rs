//! A client's samples from files: texts, or rows of tables. Errors name the file and the line.
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
//! assert!(read_rows(&path, "z").unwrap_err().to_string().contains("one of x, y, class"));
//! # Ok(())
//! # }
//! ```

use std::path::Path;

pub use tern_host::table::{Rows, Table};
use tern_host::text::{Text, listed, read_text};
use tern_protocol::tokens::Tokens;
use tern_protocol::{Error, Result};

/// Reads texts as tokens: of a file, or of the `.txt` files of a folder in order of their names,
/// plain or gzip.
///
/// # Errors
/// [`Error::File`] for a file that can't be read or isn't UTF-8, and for less than two characters
/// in all; as of [`Tokens::check`].
pub fn read_texts(path: &Path, tokens: &Tokens) -> Result<Vec<Vec<u32>>> {
    let mut texts = Vec::new();
    for file in listed(path, &["txt"])? {
        let Text { text, bad } = read_text(&file)?;
        if let Some(line) = bad.first() {
            return Err(Error::file(&file, format!("line {line}: not UTF-8")));
        }
        // As a file would be read that was written on the other system.
        texts.push(text.replace("\r\n", "\n"));
    }
    let known = tokens.check(texts.iter().map(String::as_str));
    known.map_err(|reason| Error::file(path, reason.to_string()))?;
    let texts: Vec<Vec<u32>> = texts.iter().map(|text| tokens.encode(text)).collect();
    match texts.iter().any(|text| text.len() > 1) {
        true => Ok(texts),
        false => {
            let reason = "no text to learn from, expected two characters or more";
            Err(Error::file(path, reason))
        }
    }
}

/// A table: a file, or the `.csv` and `.parquet` files of a folder in order of their names; as of
/// [`Table::open`].
///
/// # Errors
/// As of [`Table::open_several`], and [`Error::File`] for no row at all.
pub fn open_table(path: &Path) -> Result<Table> {
    let table = Table::open_several(&listed(path, &["csv", "parquet"])?)?;
    match table.is_empty()? {
        true => Err(Error::file(path, "no rows to learn from")),
        false => Ok(table),
    }
}

/// Reads the rows of a table without a schema; `label` is the column with the class.
///
/// # Errors
/// As of [`open_table`] and [`Table::plain`].
pub fn read_rows(path: &Path, label: &str) -> Result<Rows> {
    open_table(path)?.plain(label)
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
            ("b.csv", b"\xef\xbb\xbfy,x,class\r\n6,5,1\r\n"),
        ]);
        let commas = folder(&[("a.csv", b"\"x, in mm\",class\n1,2\n")]);
        assert_eq!(read_rows(commas.path(), "class").unwrap().features, [1.0]);
        let rows = read_rows(at.path(), "class").unwrap();
        assert_eq!((rows.width, rows.labels), (2, vec![0, 2, 1]));
        // The order of the first file's columns is that of all.
        assert_eq!(rows.features, [1.0, 2.5, -30.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn errors_name_file_and_line() {
        let cases: [(&str, &[u8], &str); 8] = [
            ("a.csv", b"", "a.csv: line 1: empty"),
            ("a.csv", b"x,class,x\n1,2,3\n", "a.csv: line 1: columns 1 and 3 are both named `x`"),
            ("a.csv", b"x,class\n1,2\n1\n", "a.csv: line 3: 1 values, expected 2"),
            ("a.csv", b"x,class\n1,-1\n", "a.csv: line 2: class is `-1`"),
            ("a.csv", b"x,class\n1,\xff\n", "a.csv: line 2: not UTF-8"),
            ("a.csv", b"x,class\n\"1,2\n", "a.csv: line 2: a quote that isn't closed"),
            ("a.csv", b"x,class\n", "no rows to learn from"),
            ("a.txt", b"x,class\n", "without .csv or .parquet files"),
        ];
        for (name, bytes, expected) in cases {
            let at = folder(&[(name, bytes)]);
            let error = read_rows(at.path(), "class").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
        let at = folder(&[("a.txt", b"x")]);
        assert!(read_texts(at.path(), &Tokens::Ascii).unwrap_err().to_string().contains("two"));
        assert!(read_texts(&at.path().join("no"), &Tokens::Ascii).is_err());
        let at = folder(&[("a.txt", b"one\nt\xffo\n")]);
        let error = read_texts(at.path(), &Tokens::Bytes).unwrap_err().to_string();
        assert!(error.contains("a.txt: line 2: not UTF-8"), "{error}");
    }
}
