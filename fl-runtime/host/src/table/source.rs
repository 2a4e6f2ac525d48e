//! A file of a table.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tern_protocol::{Error, Result};

use crate::csv::{BadLine, Header, Reader};
use crate::text;

/// A file, and which of its columns are those of the table.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// Where each column of the table is in the file.
    pub(super) places: Vec<usize>,
    /// Columns whose values can't be read, and what they are.
    pub(super) unreadable: Vec<(String, String)>,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Comma-separated values in a file.
    Csv,
    /// Those of a pipe, which can't be read twice.
    Bytes(Arc<[u8]>),
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        if path.extension().is_some_and(|extension| extension == "parquet") {
            return Self::parquet(path);
        }
        let kind = std::fs::metadata(path).map_err(|error| Error::file(path, error))?;
        let content = match kind.is_file() {
            true => Content::Csv,
            false => Content::Bytes(text::read(path)?.into()),
        };
        let mut reader = match &content {
            Content::Bytes(bytes) => Reader::new(std::io::Cursor::new(bytes.clone())),
            _ => Reader::open(path)?,
        };
        let wrong =
            |BadLine { line, reason, .. }| Error::file(path, format!("line {line}: {reason}"));
        let header = Header::read(reader.read()?).map_err(wrong)?;
        Ok(Self::new(path, header, Vec::new(), content))
    }

    #[cfg(feature = "parquet")]
    fn parquet(path: &Path) -> Result<Self> {
        let (header, unreadable) = super::parquet::header(path)?;
        Ok(Self::new(path, header, unreadable, Content::Parquet))
    }

    #[cfg(not(feature = "parquet"))]
    fn parquet(path: &Path) -> Result<Self> {
        let reason = "Parquet, which this program was built without (feature `parquet`), expected \
                      comma-separated values";
        Err(Error::file(path, reason))
    }

    fn new(
        path: &Path,
        header: Header,
        unreadable: Vec<(String, String)>,
        content: Content,
    ) -> Self {
        let places = (0..header.names().len()).collect();
        Source { path: path.into(), header, places, unreadable, content }
    }

    pub(super) fn names(&self) -> &[String] {
        self.header.names()
    }

    /// With the columns of another file, in that one's order.
    pub(super) fn like(self, first: &Source) -> Result<Self> {
        let names = first.names();
        let places: Option<Vec<usize>> = names.iter().map(|n| self.header.place(n)).collect();
        match places.filter(|places| places.len() == self.names().len()) {
            Some(places) => Ok(Source { places, ..self }),
            None => {
                let (found, names) = (self.names().join(", "), names.join(", "));
                let reason = format!("columns {found}, expected {names}, as in the file before");
                Err(Error::file(&self.path, reason))
            }
        }
    }

    /// What a row's number counts.
    pub(super) fn unit(&self) -> &'static str {
        match self.content {
            Content::Csv | Content::Bytes(_) => "line",
            #[cfg(feature = "parquet")]
            Content::Parquet => "row",
        }
    }
}
