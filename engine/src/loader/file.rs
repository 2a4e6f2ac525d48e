//! Sources that are tensors of a safetensors file: of the file no more is read than what is asked for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

use super::{RowSource, TokenSource};
use crate::weights::floats;
use crate::{Error, IGNORE, Result};

/// Bytes that a header may have, as safetensors itself bounds it.
const MAX_HEADER: u64 = 100_000_000;
/// PyTorch's label of what counts for nothing.
const IGNORE_INDEX: i64 = -100;

/// A tensor in a file, row by row along its first axis.
struct Rows {
    path: PathBuf,
    name: String,
    file: File,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where it begins.
    begin: u64,
    /// Bytes of a row.
    row: usize,
    /// The row that is read next.
    next: usize,
}

impl Rows {
    fn open(path: &Path, name: &str) -> Result<Self> {
        let fault = |reason: String| Error::file(path, reason);
        let system = |error: std::io::Error| Error::file(path, error);
        let mut file = File::open(path).map_err(system)?;
        let bytes = file.metadata().map_err(system)?.len();
        let mut length = [0; 8];
        let unfinished = |_| fault("is no complete safetensors file".into());
        file.read_exact(&mut length).map_err(unfinished)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER.min(bytes) {
            return Err(fault(format!("has a header of {length} bytes, of {bytes} in all")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(unfinished)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|e| fault(format!("is no safetensors file: {e}")))?;
        let Some(info) = metadata.info(name) else {
            let mut names: Vec<_> = metadata.tensors().into_keys().collect();
            names.sort();
            return Err(fault(format!("has no tensor `{name}`, but {}", names.join(", "))));
        };
        let (from, to) = info.data_offsets;
        let end = 8 + length + to as u64;
        if end > bytes {
            return Err(fault(format!("has {bytes} bytes, `{name}` would end at {end}")));
        }
        let &[rows, ..] = &info.shape[..] else {
            return Err(fault(format!("`{name}` is one number, expected rows")));
        };
        if rows == 0 || to == from {
            return Err(fault(format!("`{name}` is {:?}, expected a row at least", info.shape)));
        }
        Ok(Rows {
            path: path.into(),
            name: name.into(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            begin: 8 + length + from as u64,
            row: (to - from) / rows,
            next: 0,
            file,
        })
    }

    fn fault(&self, reason: String) -> Error {
        Error::file(&self.path, format!("`{}`{reason}", self.name))
    }

    /// The next rows, as many as there are of those asked for.
    fn take(&mut self, rows: usize) -> Result<Vec<u8>> {
        let rows = rows.min(self.shape[0] - self.next);
        let mut bytes = vec![0; rows * self.row];
        let at = self.begin + (self.next * self.row) as u64;
        let read = self.file.seek(SeekFrom::Start(at));
        read.and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|e| Error::file(&self.path, e))?;
        self.next += rows;
        Ok(bytes)
    }

    /// The next rows as floats, all of them finite.
    fn floats(&mut self, rows: usize) -> Result<Vec<f32>> {
        let first = self.next;
        let bytes = self.take(rows)?;
        let dtype = self.dtype;
        let values = floats(dtype, &bytes).ok_or_else(|| {
            self.fault(format!(" holds {dtype:?}, expected f32, f16, bf16 or f64"))
        })?;
        let width = self.width();
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let (row, column) = (first + at / width, at % width);
                Err(self.fault(format!("[{row}, {column}] is {}, not finite", values[at])))
            }
            None => Ok(values),
        }
    }

    /// The next rows as whole numbers; [`IGNORE_INDEX`], where it has a meaning, as [`IGNORE`].
    fn words(&mut self, rows: usize, ignores: bool) -> Result<Vec<u32>> {
        let first = self.next * self.width();
        let bytes = self.take(rows)?;
        let dtype = self.dtype;
        let values = integers(dtype, &bytes)
            .ok_or_else(|| self.fault(format!(" holds {dtype:?}, expected whole numbers")))?;
        let word = |(at, value): (usize, i64)| match value {
            IGNORE_INDEX if ignores => Ok(IGNORE),
            _ => u32::try_from(value).ok().filter(|word| *word != IGNORE).ok_or_else(|| {
                self.fault(format!("[{}] is {value}, expected 0 to below 2^32 - 1", first + at))
            }),
        };
        values.into_iter().enumerate().map(word).collect()
    }

    /// Numbers of a row.
    fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }
}

fn integers(dtype: Dtype, bytes: &[u8]) -> Option<Vec<i64>> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> i64) -> Vec<i64> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    Some(match dtype {
        Dtype::U8 => bytes.iter().map(|b| i64::from(*b)).collect(),
        Dtype::I8 => each(bytes, |b| i8::from_le_bytes(b).into()),
        Dtype::U16 => each(bytes, |b| u16::from_le_bytes(b).into()),
        Dtype::I16 => each(bytes, |b| i16::from_le_bytes(b).into()),
        Dtype::U32 => each(bytes, |b| u32::from_le_bytes(b).into()),
        Dtype::I32 => each(bytes, |b| i32::from_le_bytes(b).into()),
        Dtype::I64 => each(bytes, i64::from_le_bytes),
        Dtype::U64 => each(bytes, |b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX)),
        _ => return None,
    })
}

/// Rows of a safetensors file: two tensors of it, whose first axis are the samples.
pub struct RowFile {
    features: Rows,
    labels: Rows,
}

impl RowFile {
    /// Features `[N, ...]` of f32, f16, bf16 or f64, and labels `[N]` of whole numbers; -100 is
    /// [`IGNORE`], as PyTorch's `ignore_index`.
    ///
    /// # Errors
    /// [`Error::File`] if the file can't be read, is none of safetensors, or doesn't have these two.
    pub fn open(path: impl AsRef<Path>, features: &str, labels: &str) -> Result<Self> {
        let [features, labels] = [features, labels].map(|name| Rows::open(path.as_ref(), name));
        let (features, labels) = (features?, labels?);
        if labels.shape != features.shape[..1] {
            let (found, expected) = (&labels.shape, &features.shape[..1]);
            return Err(labels.fault(format!(" is {found:?}, expected {expected:?}")));
        }
        Ok(RowFile { features, labels })
    }

    /// Samples in the file.
    pub fn rows(&self) -> usize {
        self.features.shape[0]
    }

    /// Features of a sample.
    pub fn width(&self) -> usize {
        self.features.width()
    }
}

impl RowSource for RowFile {
    fn read(&mut self, features: &mut [f32], labels: &mut [u32]) -> Result<usize> {
        let classes = self.labels.words(labels.len(), true)?;
        let values = self.features.floats(labels.len())?;
        if self.width() * labels.len() != features.len() {
            let room = format!(", but of {} features", features.len() / labels.len().max(1));
            return Err(self.features.fault(format!(" has rows of {}{room}", self.width())));
        }
        labels[..classes.len()].copy_from_slice(&classes);
        features[..values.len()].copy_from_slice(&values);
        Ok(classes.len())
    }

    fn rewind(&mut self) -> Result<()> {
        (self.features.next, self.labels.next) = (0, 0);
        Ok(())
    }
}

/// The tokens of a safetensors file: a tensor of whole numbers, row by row.
pub struct TokenFile(Rows);

impl TokenFile {
    /// Tokens `[N]`.
    ///
    /// # Errors
    /// [`Error::File`] if the file can't be read, is none of safetensors, or doesn't have such a tensor.
    pub fn open(path: impl AsRef<Path>, tokens: &str) -> Result<Self> {
        let rows = Rows::open(path.as_ref(), tokens)?;
        if rows.shape.len() != 1 {
            return Err(rows.fault(format!(" is {:?}, expected one axis", rows.shape)));
        }
        Ok(TokenFile(rows))
    }

    /// Tokens in the file.
    pub fn tokens(&self) -> usize {
        self.0.shape[0]
    }
}

impl TokenSource for TokenFile {
    fn read(&mut self, tokens: &mut [u32]) -> Result<usize> {
        let words = self.0.words(tokens.len(), false)?;
        tokens[..words.len()].copy_from_slice(&words);
        Ok(words.len())
    }

    fn rewind(&mut self) -> Result<()> {
        self.0.next = 0;
        Ok(())
    }
}
