//! Where the journal is, known in a second place: a small file beside the database, by which a
//! journal that lost its last writes, or all of them, is told from one that has them.
//!
//! A write is in the database first and in this file after it, before its sender is told. So the
//! database may be one write ahead, where the process ended between the two, and never behind.
//! The file has two places that are written in turn, each with a check of its own: a place that is
//! torn or damaged leaves the other one, which is a write behind.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tern_host::files::{Durability, replace};
use tern_protocol::coordinator::Standing;
use tern_protocol::{Digest, Error, Result, RunId, Turn};

use super::chain::Position;

/// The file in a run's folder.
pub(crate) const FILE: &str = "journal.head";
/// What a record begins with; the number is the format's.
const NAME: &str = "tern-head-2";
/// In place of the best model, while the run goes on.
const NOT_OVER: &str = "-";
/// Bytes of a record: a sector of a disk, which is written whole.
const SIZE: usize = 512;

/// The last write, as it is known outside of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The run.
    pub run: RunId,
    /// Writes so far.
    pub sequence: u64,
    /// The chain's digest after them.
    pub chain: Digest,
    /// The last committed round.
    pub round: u32,
    /// The model it left.
    pub model: Digest,
    /// The open attempt, and whether the run is over.
    pub standing: Standing,
}

/// What is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Missing,
    /// Neither record of it is whole.
    Damaged,
    /// The later one that is.
    Whole(Head),
}

impl Head {
    /// At the end of a chain.
    pub(super) fn of(run: RunId, at: &Position) -> Self {
        let Position { sequence, chain, round, model, standing, .. } = *at;
        Head { run, sequence, chain, round, model, standing }
    }

    fn text(&self) -> String {
        let Head { run, sequence, chain, round, model, standing: Standing { turn, over } } = self;
        let over = over.map_or_else(|| NOT_OVER.into(), |model| model.to_string());
        let (open, attempt) = (turn.round, turn.attempt);
        format!("{NAME} {run} {sequence} {chain} {round} {model} {open} {attempt} {over}")
    }

    fn to_bytes(self) -> Vec<u8> {
        let text = self.text();
        let check = Digest::of(text.as_bytes());
        format!("{:<width$}\n", format!("{text} {check}"), width = SIZE - 1).into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split_ascii_whitespace();
        words.next().filter(|name| *name == NAME)?;
        let head = Head {
            run: words.next()?.parse().ok()?,
            sequence: words.next()?.parse().ok()?,
            chain: words.next()?.parse().ok()?,
            round: words.next()?.parse().ok()?,
            model: words.next()?.parse().ok()?,
            standing: Standing {
                turn: Turn::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?),
                over: match words.next()? {
                    NOT_OVER => None,
                    model => Some(model.parse().ok()?),
                },
            },
        };
        // Spelled as it was written, spaces included.
        (head.to_bytes() == bytes).then_some(head)
    }
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Found> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(Error::file(path, error)),
    };
    let heads = bytes.chunks(SIZE).take(2).filter_map(Head::from_bytes);
    Ok(heads.max_by_key(|head| head.sequence).map_or(Found::Damaged, Found::Whole))
}

/// The file, to be written.
pub(super) struct HeadFile {
    path: PathBuf,
    durability: Durability,
    file: Option<File>,
}

impl HeadFile {
    pub fn new(folder: &Path, durability: Durability) -> Self {
        HeadFile { path: folder.join(FILE), durability, file: None }
    }

    /// Writes a record, flushed if power may fail.
    pub fn write(&mut self, head: &Head) -> Result<()> {
        let bytes = head.to_bytes();
        if !self.path.exists() {
            replace(&self.path, &bytes.repeat(2), self.durability)?;
            self.file = None;
            return Ok(());
        }
        let failed = |error: std::io::Error| Error::file(&self.path, error);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().write(true).open(&self.path).map_err(failed)?),
        };
        let place = head.sequence % 2 * SIZE as u64;
        file.seek(SeekFrom::Start(place)).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        match self.durability {
            Durability::Power => file.sync_data().map_err(failed),
            Durability::None | Durability::Process => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(sequence: u64) -> Head {
        let (chain, model) = (Digest::of(&sequence.to_le_bytes()), Digest([7; 32]));
        let over = sequence.is_multiple_of(3).then_some(chain);
        let standing = Standing { turn: Turn::new(6, sequence as u32), over };
        Head { run: RunId([3; 16]), sequence, chain, round: 5, model, standing }
    }

    #[test]
    fn a_damaged_record_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(read(&path).unwrap(), Found::Missing);
        let mut file = HeadFile::new(folder.path(), Durability::Power);
        for sequence in 1..=6 {
            file.write(&head(sequence)).unwrap();
            assert_eq!(read(&path).unwrap(), Found::Whole(head(sequence)));
        }
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), 2 * SIZE);
        let flipped = |bit: usize| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        for bit in 0..8 * SIZE {
            assert_eq!(Head::from_bytes(&flipped(bit)[..SIZE]), None, "bit {bit}");
        }
        for bit in (0..8 * whole.len()).step_by(811) {
            let bytes = flipped(bit);
            std::fs::write(&path, &bytes).unwrap();
            let left = if bit / 8 < SIZE { 5 } else { 6 };
            assert_eq!(read(&path).unwrap(), Found::Whole(head(left)), "bit {bit}");
        }
        std::fs::write(&path, &whole[SIZE / 2..SIZE * 3 / 2]).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Damaged);
    }
}
