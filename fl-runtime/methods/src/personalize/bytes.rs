//! How models and devices are written: the length of a header (32 bits), the header as JSON, and
//! 32-bit words, all little-endian.

use serde::Serialize;
use serde::de::DeserializeOwned;

use tern_protocol::{Error, Result};

/// The bytes of `what`.
pub(super) fn encode(
    what: &str,
    header: &impl Serialize,
    words: impl Iterator<Item = u32>,
) -> Result<Vec<u8>> {
    let header = serde_json::to_vec(header)
        .map_err(|error| Error::value(format!("header of {what}"), error, "JSON"))?;
    let mut bytes = (header.len() as u32).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(words.flat_map(u32::to_le_bytes));
    Ok(bytes)
}

/// Header and words of `what`, of which [`encode`] made bytes.
pub(super) fn decode<H: DeserializeOwned>(
    what: &str,
    expected: &str,
    bytes: &[u8],
) -> Result<(H, Words)> {
    let unread = |found: String| Error::value(what, found, expected);
    let (length, rest) =
        bytes.split_first_chunk().ok_or_else(|| unread("without a header".into()))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (header, body) =
        rest.split_at_checked(length).ok_or_else(|| unread("cut off in its header".into()))?;
    let header = serde_json::from_slice(header).map_err(|e| unread(format!("damaged ({e})")))?;
    let (words, left) = body.as_chunks::<4>();
    if !left.is_empty() {
        return Err(unread("cut off in its parameters".into()));
    }
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    Ok((header, Words { left: words.into_iter() }))
}

/// Words that were not read yet.
pub(super) struct Words {
    left: std::vec::IntoIter<u32>,
}

impl Words {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.left.len()
    }

    /// The next `n`; `None` if there are fewer.
    pub fn take(&mut self, n: usize) -> Option<Vec<u32>> {
        (n <= self.len()).then(|| self.left.by_ref().take(n).collect())
    }

    /// The next `n` as floats; `None` if there are fewer.
    pub fn floats(&mut self, n: usize) -> Option<Vec<f32>> {
        Some(self.take(n)?.into_iter().map(f32::from_bits).collect())
    }
}
