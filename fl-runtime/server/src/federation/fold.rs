//! Adding up updates: all of an attempt, or a part of them elsewhere. Sums are of integers, so that
//! parts added in any order have the bits of the whole.

use std::io::{BufReader, Read};

use tern_protocol::coordinator::Upload;
use tern_protocol::layout::Layout;
use tern_protocol::update::{Format, Hashing, Kind};
use tern_protocol::{ClientId, Digest, Error, Refusal, Result, RunPlan, Total, Turn};

use crate::journal::CountedUpload;
use crate::storage::Bodies;

/// What the updates of an attempt add up to.
#[derive(Clone, Debug, PartialEq)]
pub enum Sum {
    /// Weighted, of floats.
    Clear(Total),
    /// Of masked words, mod 2^32.
    Masked(Vec<u32>),
}

impl Sum {
    /// Adds a sum of other updates of the same attempt.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for one of another run.
    pub fn merge(&mut self, other: &Sum) -> Result<()> {
        let merged = match (self, other) {
            (Sum::Clear(sum), Sum::Clear(other)) => sum.merge(other),
            (Sum::Masked(sum), Sum::Masked(other)) if sum.len() == other.len() => {
                sum.iter_mut().zip(other).for_each(|(a, b)| *a = a.wrapping_add(*b));
                true
            }
            _ => false,
        };
        if merged { Ok(()) } else { Err(Refusal::Malformed("sum").into()) }
    }

    /// As bytes: of a clear sum its weight, then its words; all little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (weight, words) = match self {
            Sum::Clear(total) => (Some(total.weight()), total.words()),
            Sum::Masked(words) => (None, &words[..]),
        };
        let weight = weight.iter().flat_map(|weight| weight.to_le_bytes());
        weight.chain(words.iter().flat_map(|word| word.to_le_bytes())).collect()
    }
}

/// What is counted of an update: its weight, and the digest by which it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// SHA-256 of its body.
    pub digest: Digest,
    /// Samples.
    pub weight: u32,
}

impl From<&Upload> for Counted {
    fn from(upload: &Upload) -> Self {
        Counted { digest: upload.digest, weight: upload.samples }
    }
}

impl From<&CountedUpload> for Counted {
    fn from(upload: &CountedUpload) -> Self {
        Counted { digest: upload.digest, weight: upload.samples }
    }
}

/// What a stored update was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// As it was taken.
    Whole,
    /// Something else, or nothing; the total it was added to is none any more.
    Damaged(String),
}

/// How the updates of a run are read and added up: it follows from the plan alone.
#[derive(Clone, Debug)]
pub struct Folding {
    layout: Layout,
    format: Format,
    fraction_bits: u32,
}

impl Folding {
    /// Of a run.
    ///
    /// # Errors
    /// [`Error::Value`] for a plan that makes no sense.
    pub fn new(plan: &RunPlan) -> Result<Self> {
        let layout = plan.check()?;
        let kind = match plan.masking(&layout)? {
            Some(masking) => Kind::Masked(masking.packing),
            None => plan.updates.uplink.into(),
        };
        let format = Format::of_updates(&plan.updates, kind, &layout);
        Ok(Folding { format, fraction_bits: plan.fraction_bits(), layout })
    }

    /// What bodies of updates look like.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// A sum of nothing.
    pub fn empty(&self) -> Sum {
        match self.format.kind() {
            Kind::Masked(packing) => Sum::Masked(vec![0; packing.words()]),
            _ => Sum::Clear(Total::new(self.layout.elements(), self.fraction_bits)),
        }
    }

    /// A sum from its bytes.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for another number of them.
    pub fn sum_from_bytes(&self, bytes: &[u8]) -> Result<Sum> {
        let malformed = || Error::from(Refusal::Malformed("sum"));
        let words = |bytes: &[u8]| -> Vec<u32> {
            bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        match self.empty() {
            Sum::Masked(empty) if bytes.len() == 4 * empty.len() => Ok(Sum::Masked(words(bytes))),
            Sum::Clear(empty) if bytes.len() == 8 + 4 * empty.words().len() => {
                let (weight, rest) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
                let weight = u64::from_le_bytes(*weight);
                Ok(Sum::Clear(Total::from_words(words(rest), self.fraction_bits, weight)))
            }
            _ => Err(malformed()),
        }
    }

    /// Adds up these updates of an attempt; those of whom they are damaged, if any is.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn fold(
        &self,
        bodies: &dyn Bodies,
        turn: Turn,
        updates: &[(ClientId, Counted)],
    ) -> Result<Result<Sum, Vec<ClientId>>> {
        let (mut total, mut lost) = (self.empty(), Vec::new());
        for (client, update) in updates {
            match self.add(bodies, &mut total, turn, client, update)? {
                Stored::Whole => {}
                Stored::Damaged(reason) => {
                    tracing::warn!(%client, reason, "a stored update is damaged");
                    lost.push(*client);
                }
            }
        }
        Ok(if lost.is_empty() { Ok(total) } else { Err(lost) })
    }

    /// Adds a stored update, whose bytes are hashed while they are read.
    pub(super) fn add(
        &self,
        bodies: &dyn Bodies,
        total: &mut Sum,
        turn: Turn,
        client: &ClientId,
        Counted { digest, weight }: &Counted,
    ) -> Result<Stored> {
        let gone = || Ok(Stored::Damaged("it is gone".into()));
        let open = || {
            let body = bodies.upload(turn, client, digest)?;
            Ok::<_, Error>(body.map(|body| BufReader::with_capacity(1 << 16, body)))
        };
        let format = &self.format;
        let factor = match format.is_limited() {
            true => match open()? {
                Some(body) => format.factor(body),
                None => return gone(),
            },
            false => Ok(1.0),
        };
        let Some(body) = open()? else { return gone() };
        let mut body = Hashing::new(body);
        let added = factor.and_then(|factor| match total {
            Sum::Clear(total) => {
                total.begin(*weight);
                if factor < 1.0 {
                    tracing::warn!(%client, %turn, factor, "scaled down to updates.max_norm");
                }
                format.scaled(&mut body, factor, |at, part| total.add(at, part, *weight))
            }
            Sum::Masked(total) => format.add_masked(&mut body, total),
        });
        match added {
            // What was found right when it came.
            Err(Error::Refused(refusal)) => return Ok(Stored::Damaged(refusal.to_string())),
            other => other?,
        }
        let name = || bodies.upload_name(turn, client);
        let more = body.read(&mut [0]).map_err(|e| Error::file(&name(), e))?;
        Ok(match body.digest() {
            made if made == *digest && more == 0 => Stored::Whole,
            made => Stored::Damaged(format!("SHA-256 {made}, expected {digest}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use tern_host::files::{Durability, Faults};
    use tern_protocol::layout::{ModelKind, TensorSpec};
    use tern_protocol::update::Codec;

    use super::*;
    use crate::blobs::Blobs;

    /// However the updates are dealt to parts and the parts are added, and through their bytes.
    #[test]
    fn parts_add_up_to_the_bits_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let blobs =
            Blobs::open(folder.path(), Durability::None, u64::MAX, Faults::default()).unwrap();
        let shape = TensorSpec { name: "w".into(), shape: vec![70] };
        let mut plan = RunPlan::new("weights", ModelKind::Tensors(vec![shape]), 1);
        plan.updates.max_norm = Some(0.5);
        let folding = Folding::new(&plan).unwrap();
        let (turn, elements) = (Turn::new(3, 2), folding.layout.elements());
        let updates: Vec<(ClientId, Counted)> = (0..9u32)
            .map(|number| {
                let value = |i| ((i as u32 * 7 + number * 3) % 11) as f32 * 0.02 - 0.1;
                let body = Codec::full(&(0..elements).map(value).collect::<Vec<_>>());
                let (client, digest) = (ClientId::numbered(number as usize), Digest::of(&body));
                let mut partial = blobs.partial(turn, &client).unwrap();
                partial.append(&body).unwrap();
                blobs.accept(&partial, turn, &client).unwrap();
                (client, Counted { digest, weight: 1 + number })
            })
            .collect();
        let fold = |part: &[_]| folding.fold(&blobs, turn, part).unwrap().unwrap();
        let whole = fold(&updates);
        for size in 1..=9 {
            let mut sum = folding.empty();
            for part in updates.chunks(size).rev() {
                let bytes = fold(part).to_bytes();
                sum.merge(&folding.sum_from_bytes(&bytes).unwrap()).unwrap();
            }
            assert_eq!(sum, whole, "parts of {size}");
        }
        assert_ne!(fold(&updates[1..]), whole);
        // A sum of another kind or length is none.
        assert!(folding.empty().merge(&Sum::Masked(vec![0; 2 * elements])).is_err());
        assert!(folding.sum_from_bytes(&whole.to_bytes()[4..]).is_err());
        // Damaged ones are named.
        std::fs::write(blobs.upload_path(turn, &updates[4].0), b"short").unwrap();
        std::fs::remove_file(blobs.upload_path(turn, &updates[7].0)).unwrap();
        let lost = folding.fold(&blobs, turn, &updates).unwrap().unwrap_err();
        assert_eq!(lost, [updates[4].0, updates[7].0]);
    }
}
