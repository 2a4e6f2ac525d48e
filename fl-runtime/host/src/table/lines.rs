//! The lines of a table, file by file.

use std::mem::take;

use tern_protocol::{Error, Result};

use super::source::{Content, Source};
use crate::csv::{Line, Reader, Record};

/// The lines of a table: its files in their order, with the columns in the order of the first one.
pub struct Lines<'a> {
    files: &'a [Source],
    /// The number of the file that is read.
    file: usize,
    open: Option<Open>,
}

enum Open {
    Csv(Box<Reader>),
    #[cfg(feature = "parquet")]
    Parquet(super::parquet::Rows),
}

impl<'a> Lines<'a> {
    pub(super) fn of(files: &'a [Source]) -> Self {
        Lines { files, file: 0, open: None }
    }

    /// The next one, `None` at the end.
    ///
    /// # Errors
    /// [`Error::File`] for a file that can't be read.
    pub fn read(&mut self) -> Result<Option<Line>> {
        while let Some(file) = self.files.get(self.file) {
            if self.open.is_none() {
                self.open = Some(open(file)?);
            }
            let line = match &mut self.open {
                Some(Open::Csv(reader)) => reader.read()?,
                #[cfg(feature = "parquet")]
                Some(Open::Parquet(rows)) => rows.read()?,
                None => None,
            };
            if let Some(line) = line {
                let in_order = |Record { line, mut fields }: Record| Record {
                    line,
                    fields: file.places.iter().map(|at| take(&mut fields[*at])).collect(),
                };
                let record = line.and_then(|record| file.header.fits(record));
                return Ok(Some(record.map(in_order)));
            }
            self.open = None;
            self.file += 1;
        }
        Ok(None)
    }

    /// What is wrong with a line of the file that is read.
    pub fn error(&self, line: usize, reason: &str) -> Error {
        let file = &self.files[self.file.min(self.files.len() - 1)];
        Error::file(&file.path, format!("{} {line}: {reason}", file.unit()))
    }
}

/// A file at its first row.
fn open(file: &Source) -> Result<Open> {
    let mut reader = match &file.content {
        Content::Csv => Reader::open(&file.path)?,
        Content::Bytes(bytes) => Reader::new(std::io::Cursor::new(bytes.clone())),
        #[cfg(feature = "parquet")]
        Content::Parquet => return Ok(Open::Parquet(super::parquet::Rows::open(file)?)),
    };
    // The names.
    reader.read()?;
    Ok(Open::Csv(Box::new(reader)))
}
