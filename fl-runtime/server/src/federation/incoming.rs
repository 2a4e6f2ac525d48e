//! A body on its way in. Receiving and checking need no lock around the federation, only around
//! the one upload.

use std::io::BufReader;

use tern_protocol::update::Format;
use tern_protocol::{ClientId, Digest, Error, Refusal, Result, Turn};

use super::stored;
use crate::blobs::Partial;
use crate::storage::Bodies;

/// An upload of a client, as far as it is here.
#[derive(Debug)]
pub struct Incoming {
    partial: Partial,
    turn: Turn,
    client: ClientId,
    format: Format,
}

/// A complete and checked body.
#[derive(Debug)]
pub struct Received {
    /// The upload.
    pub incoming: Incoming,
    /// SHA-256 of its body.
    pub digest: Digest,
}

impl Incoming {
    /// What is there of an upload that is to have a format.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(bodies: &dyn Bodies, turn: Turn, client: ClientId, format: Format) -> Result<Self> {
        Ok(Incoming { partial: bodies.partial(turn, &client)?, turn, client, format })
    }

    /// Bytes there are.
    pub fn len(&self) -> u64 {
        self.partial.len()
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    /// Bytes there will be.
    pub fn expected(&self) -> u64 {
        self.format.bytes()
    }

    /// The attempt it is for.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// Whose it is.
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// The file it is in.
    pub fn partial(&self) -> &Partial {
        &self.partial
    }

    /// Takes the part that starts at `offset`; returns how much there is then.
    ///
    /// # Errors
    /// [`Refusal::Offset`] if it doesn't go on where the last ended, [`Refusal::Length`] if it
    /// is too long, [`Refusal::Storage`] if it can't be stored.
    pub fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, Refusal> {
        if offset != self.len() {
            return Err(Refusal::Offset { given: offset, expected: self.len() });
        }
        let (given, expected) = (offset.saturating_add(bytes.len() as u64), self.expected());
        if given > expected {
            return Err(Refusal::Length { given, expected });
        }
        self.partial.append(bytes).map_err(stored)?;
        Ok(self.len())
    }

    /// Whether all of it is there, once a body that comes in one piece with what ends the upload has
    /// taken the place of pieces that came before; an empty one is none.
    ///
    /// # Errors
    /// [`Refusal::Length`] if it isn't, [`Refusal::Storage`] if it can't be stored.
    pub fn complete(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let expected = self.expected();
        match body.len() as u64 {
            0 => return self.check_length(),
            given if given != expected => return Err(Refusal::Length { given, expected }),
            _ => {}
        }
        self.forget().map_err(stored)?;
        self.append(0, body).map(|_| ())
    }

    /// Forgets what came in.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn forget(&mut self) -> Result<()> {
        self.partial.clear()
    }

    /// Whether all of it is there.
    ///
    /// # Errors
    /// [`Refusal::Length`] if it isn't.
    pub fn check_length(&self) -> Result<(), Refusal> {
        let (given, expected) = (self.len(), self.expected());
        match given == expected {
            true => Ok(()),
            false => Err(Refusal::Length { given, expected }),
        }
    }

    /// Checks the whole body: its length, the hash that was announced, its numbers. A body that
    /// fails is forgotten, so that it can be sent again.
    ///
    /// # Errors
    /// What is wrong with it; [`Refusal::Storage`] if it can't be read.
    pub fn finish(mut self, announced: &[u8]) -> Result<Received, Refusal> {
        self.check_length()?;
        let refusal = match self.check() {
            Ok(digest) if digest.0 == announced => {
                return Ok(Received { incoming: self, digest });
            }
            Ok(_) => Refusal::Hash,
            Err(Error::Refused(refusal)) => refusal,
            Err(other) => return Err(stored(other)),
        };
        self.partial.clear().map_err(stored)?;
        Err(refusal)
    }

    fn check(&mut self) -> Result<Digest> {
        let format = &self.format;
        format.check(BufReader::with_capacity(1 << 16, self.partial.reader()?))
    }
}
