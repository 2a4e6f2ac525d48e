//! Updates on the wire: how a flat vector becomes a body, and how a body from outside is checked
//! and read without ever being whole in memory.
//!
//! | Format | Body |
//! |---|---|
//! | full | elements × `f32` |
//! | half | elements × `f16` |
//! | ternary | tensors × `f32` scales, then 2-bit codes, 16 to a word, as the engine has them |
//! | masked | words of fixed point or of lanes of codes, then of sums of metrics, packed ([`Packing`]) |
//!
//! All little-endian, padding included.
//!
//! ```
//! use tern_engine::nn::ModelSpec;
//! use tern_protocol::layout::ModelKind;
//! use tern_protocol::update::{Codec, Format, Kind};
//! use tern_protocol::{Digest, Layout};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let layout = Layout::of(&ModelKind::Layers(ModelSpec::mlp(3, &[], 2)))?;
//! let format = Format::new(Kind::Half, &layout, 1.0);
//! let update = vec![0.5; layout.elements()];
//! let body = Codec::half(&update);
//! assert_eq!(body.len() as u64, format.bytes());
//! assert_eq!(format.check(&body[..])?, Digest::of(&body));
//! assert_eq!(format.decode(&body)?, update);
//!
//! // Elements beyond the bound are refused.
//! let large = Codec::half(&vec![2.0; layout.elements()]);
//! assert!(format.check(&large[..]).is_err());
//! # Ok(())
//! # }
//! ```

mod encode;
mod norm;
mod ternary;

use std::io::Read;
use std::ops::Range;

use half::f16;
use sha2::{Digest as _, Sha256};
use tern_secagg::{Packing, Unpacker};

pub use encode::{Codec, Scales};
pub use norm::limit;

use crate::plan::{Encoding, Updates};
use crate::{Digest, Layout, Refusal, Result};

/// Elements that are read at a time.
const CHUNK: usize = 1 << 14;

/// What a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Floats.
    Full,
    /// Half-precision floats.
    Half,
    /// Scales and codes.
    Ternary,
    /// Masked words.
    Masked(Packing),
}

impl From<Encoding> for Kind {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Full => Kind::Full,
            Encoding::Half => Kind::Half,
            Encoding::Ternary => Kind::Ternary,
        }
    }
}

/// What the bodies of a round look like.
#[derive(Clone, Debug)]
pub struct Format {
    kind: Kind,
    elements: usize,
    segments: Vec<u32>,
    bound: f32,
    max_norm: Option<f64>,
}

impl Format {
    /// Bodies of vectors of a layout with elements within ±`bound`.
    pub fn new(kind: Kind, layout: &Layout, bound: f32) -> Self {
        let segments = layout.segments().to_vec();
        Format { kind, elements: layout.elements(), segments, bound, max_norm: None }
    }

    /// Bodies of a plan's updates, which have a largest norm, too.
    pub fn of_updates(updates: &Updates, kind: Kind, layout: &Layout) -> Self {
        Format { max_norm: updates.max_norm, ..Format::new(kind, layout, updates.bound) }
    }

    /// What a body holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of a body.
    pub fn bytes(&self) -> u64 {
        let bytes = match self.kind {
            Kind::Full => 4 * self.elements,
            Kind::Half => 2 * self.elements,
            Kind::Ternary => 4 * self.tensors() + self.elements / 4,
            Kind::Masked(packing) => packing.bytes(),
        };
        bytes as u64
    }

    fn tensors(&self) -> usize {
        self.segments.len() - 1
    }

    /// Checks a whole body: length, numbers, codes. Returns its SHA-256.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] with what is wrong; [`crate::Error::File`] if the source fails.
    pub fn check(&self, source: impl Read) -> Result<Digest> {
        let mut source = Hashing::new(source);
        match self.kind {
            Kind::Masked(packing) => self.pieces(&mut source, packing, |_| Ok(()))?,
            _ => self.values(&mut source, |_, _| ())?,
        }
        let mut more = [0];
        if source.read(&mut more).map_err(failed)? > 0 {
            let expected = self.bytes();
            return Err(Refusal::Length { given: expected + 1, expected }.into());
        }
        Ok(source.digest())
    }

    /// Reads a body of floats or codes and gives its elements to `each`, part by part with the
    /// place of the first.
    ///
    /// # Errors
    /// As [`Format::check`].
    pub fn values(
        &self,
        mut source: impl Read,
        mut each: impl FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        let scales = match self.kind {
            Kind::Ternary => ternary::scales(&mut source, self)?,
            _ => Vec::new(),
        };
        let mut values = vec![0f32; CHUNK.min(self.elements)];
        let mut raw = vec![0u8; 2 * values.len()];
        for part in parts(self.elements) {
            let values = &mut values[..part.len()];
            match self.kind {
                Kind::Full => {
                    self.fill(&mut source, bytemuck::cast_slice_mut(values), part.start)?;
                    values.iter_mut().for_each(|x| *x = f32::from_bits(u32::from_le(x.to_bits())));
                }
                Kind::Half => {
                    let raw = &mut raw[..2 * part.len()];
                    self.fill(&mut source, raw, part.start)?;
                    for (value, bytes) in values.iter_mut().zip(raw.as_chunks::<2>().0) {
                        *value = f16::from_le_bytes(*bytes).to_f32();
                    }
                }
                Kind::Ternary => {
                    let raw = &mut raw[..part.len() / 4];
                    self.fill(&mut source, raw, part.start)?;
                    ternary::decode(raw, part.clone(), &self.segments, &scales, values)?;
                }
                Kind::Masked(_) => return Err(Refusal::Malformed("body").into()),
            }
            self.check_numbers(values, part.start)?;
            each(part.start, values);
        }
        Ok(())
    }

    /// Reads a body of masked words and adds them to `sum`, mod 2^32.
    ///
    /// # Errors
    /// As [`Format::check`].
    pub fn add_masked(&self, mut source: impl Read, sum: &mut [u32]) -> Result<()> {
        let Kind::Masked(packing) = self.kind else {
            return Err(Refusal::Malformed("body").into());
        };
        let mut unpacker = Unpacker::new(packing);
        let malformed = |_| Refusal::Malformed("masked words").into();
        self.pieces(&mut source, packing, |bytes| unpacker.add(bytes, sum).map_err(malformed))?;
        unpacker.finish().map_err(malformed)
    }

    /// Reads a body of masked words piece by piece.
    fn pieces(
        &self,
        source: &mut impl Read,
        packing: Packing,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut piece = vec![0; (4 * CHUNK).min(packing.bytes())];
        let mut left = packing.bytes();
        while left > 0 {
            let piece = &mut piece[..left.min(4 * CHUNK)];
            self.fill(source, piece, 0)?;
            left -= piece.len();
            // Bits after the last word are zero.
            let unused =
                8 * packing.bytes() as u64 - packing.words() as u64 * u64::from(packing.bits());
            if left == 0 && piece.last().is_some_and(|last| u64::from(*last) >> (8 - unused) != 0) {
                return Err(Refusal::Malformed("masked words").into());
            }
            each(piece)?;
        }
        Ok(())
    }

    /// A whole body as a vector.
    ///
    /// # Errors
    /// As [`Format::check`].
    pub fn decode(&self, body: &[u8]) -> Result<Vec<f32>> {
        if body.len() as u64 != self.bytes() {
            let (given, expected) = (body.len() as u64, self.bytes());
            return Err(Refusal::Length { given, expected }.into());
        }
        let mut flat = Vec::with_capacity(self.elements);
        self.values(body, |_, values| flat.extend_from_slice(values))?;
        Ok(flat)
    }

    /// Reads exactly as much as fits; `at` is the element that starts there.
    fn fill(&self, source: &mut impl Read, into: &mut [u8], at: usize) -> Result<()> {
        source.read_exact(into).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let expected = self.bytes();
                let given = expected / self.elements.max(1) as u64 * at as u64;
                Refusal::Length { given, expected }.into()
            }
            _ => failed(error),
        })
    }

    fn check_numbers(&self, values: &[f32], first: usize) -> Result<()> {
        // Magnitudes order as their bits do, and what is not finite comes last.
        let bound = self.bound.to_bits();
        let magnitude = |x: &f32| x.to_bits() & 0x7fff_ffff;
        let largest = values.iter().fold(0, |most, x| magnitude(x).max(most));
        if largest <= bound {
            return Ok(());
        }
        let at = values.iter().position(|x| magnitude(x) > bound).unwrap_or(0);
        let (value, bound) = (values[at], self.bound);
        Err(Refusal::Number { at: first + at, value, bound }.into())
    }
}

/// A model as clients have it: the last one and a ternary difference.
///
/// # Errors
/// [`crate::Error::Refused`] for a difference that is none.
pub fn add_difference(layout: &Layout, base: &[f32], difference: &[u8]) -> Result<Vec<f32>> {
    let steps = Format::new(Kind::Ternary, layout, f32::MAX).decode(difference)?;
    Ok(base.iter().zip(steps).map(|(base, step)| base + step).collect())
}

fn failed(error: std::io::Error) -> crate::Error {
    crate::Error::file(std::path::Path::new("body"), error)
}

fn parts(count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(CHUNK).map(move |start| start..(start + CHUNK).min(count))
}

/// Hashes what is read through it.
#[derive(Debug)]
pub struct Hashing<R> {
    source: R,
    hasher: Sha256,
}

impl<R> Hashing<R> {
    /// Of a source that nothing was read from.
    pub fn new(source: R) -> Self {
        Hashing { source, hasher: Sha256::new() }
    }

    /// SHA-256 of what was read.
    pub fn digest(self) -> Digest {
        Digest(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(into)?;
        self.hasher.update(&into[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
