//! Masked words on their way to the server: `bits` of each, without gaps, the first word in the
//! lowest bits of the first byte.

use serde::{Deserialize, Serialize};
use tern_shaders::kernels::ternary::{lane_bits, lane_words};

/// Most words of a vector.
const MAX_WORDS: usize = 1 << 30;

/// Length of a masked vector, and how many bits of its words count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Packing {
    words: usize,
    bits: u32,
}

/// A packing as it comes from outside.
#[derive(Deserialize)]
struct Unchecked {
    words: usize,
    bits: u32,
}

impl TryFrom<Unchecked> for Packing {
    type Error = PackError;

    fn try_from(unchecked: Unchecked) -> Result<Self, PackError> {
        Packing::new(unchecked.words, unchecked.bits)
    }
}

/// Why words can't be packed or bytes unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Bits of a word out of range.
    #[error("{bits} bits a word, expected 1 to 32")]
    Bits {
        /// The number given.
        bits: u32,
    },
    /// More words than a vector may have.
    #[error("vectors of {words} words, expected 2^30 at most")]
    Length {
        /// The number given.
        words: usize,
    },
    /// A vector of another length.
    #[error("{words} words, expected {expected}")]
    Words {
        /// Words given.
        words: usize,
        /// Words of the vector.
        expected: usize,
    },
    /// A body of another length.
    #[error("{bytes} bytes of packed words, expected {expected}")]
    Bytes {
        /// Bytes given, so far.
        bytes: usize,
        /// Bytes of the vector.
        expected: usize,
    },
    /// Bits after the last word that aren't zero.
    #[error("the last byte of packed words is {last:#04x}: bits after the last word aren't zero")]
    Padding {
        /// The byte.
        last: u8,
    },
}

impl Packing {
    /// Vectors of `words` words mod 2^`bits`, for fixed point.
    ///
    /// # Errors
    /// [`PackError::Bits`] unless 1 to 32, [`PackError::Length`] above 2^30 words.
    pub fn new(words: usize, bits: u32) -> Result<Self, PackError> {
        if !(1..=32).contains(&bits) {
            return Err(PackError::Bits { bits });
        }
        if words > MAX_WORDS {
            return Err(PackError::Length { words });
        }
        Ok(Packing { words, bits })
    }

    /// Ternary codes of `elements` elements in lanes that hold the sum of up to `clients`
    /// clients, ⌈log2(2 · clients + 1)⌉ bits each: 8 for 64 to 127 clients. Lanes don't use the
    /// highest bits of a word unless they divide 32.
    ///
    /// # Errors
    /// [`PackError::Bits`] if a lane doesn't fit a word.
    pub fn ternary(elements: usize, clients: u32) -> Result<Self, PackError> {
        let lane = lane_bits(clients);
        if lane > 32 {
            return Err(PackError::Bits { bits: lane });
        }
        Self::new(lane_words(elements, lane), 32 / lane * lane)
    }

    /// Words of a vector.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Bits of a word that count.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The modulus, 2^bits, less one.
    pub fn modulus_mask(&self) -> u32 {
        u32::MAX >> (32 - self.bits)
    }

    /// Bytes of a packed vector.
    pub fn bytes(&self) -> usize {
        (self.words as u64 * u64::from(self.bits)).div_ceil(8) as usize
    }

    /// Packs words mod 2^bits.
    ///
    /// # Errors
    /// [`PackError::Words`] for another length.
    pub fn pack(&self, words: &[u32]) -> Result<Vec<u8>, PackError> {
        if words.len() != self.words {
            return Err(PackError::Words { words: words.len(), expected: self.words });
        }
        let mut bytes = Vec::with_capacity(self.bytes() + 4);
        let (mut pending, mut held) = (0u64, 0);
        for word in words {
            pending |= u64::from(word & self.modulus_mask()) << held;
            held += self.bits;
            if held >= 32 {
                bytes.extend_from_slice(&(pending as u32).to_le_bytes());
                pending >>= 32;
                held -= 32;
            }
        }
        bytes.extend_from_slice(&(pending as u32).to_le_bytes());
        bytes.truncate(self.bytes());
        Ok(bytes)
    }

    /// The words of a packed vector.
    ///
    /// # Errors
    /// [`PackError::Bytes`] and [`PackError::Padding`].
    pub fn unpack(&self, bytes: &[u8]) -> Result<Vec<u32>, PackError> {
        if bytes.len() != self.bytes() {
            return Err(PackError::Bytes { bytes: bytes.len(), expected: self.bytes() });
        }
        let mut words = vec![0; self.words];
        let mut unpacker = Unpacker::new(*self);
        unpacker.add(bytes, &mut words)?;
        unpacker.finish()?;
        Ok(words)
    }
}

/// Adds a packed vector to a sum, mod 2^32, as its bytes come. The sum mod 2^bits is that of
/// the vectors. An error leaves the sum with a part of the vector: check length and hash of a
/// body before it is added to anything that can't be thrown away.
pub struct Unpacker {
    packing: Packing,
    /// Bits read that no word has taken.
    pending: u64,
    held: u32,
    next: usize,
    read: usize,
}

impl Unpacker {
    /// At a vector's first byte.
    pub fn new(packing: Packing) -> Self {
        Unpacker { packing, pending: 0, held: 0, next: 0, read: 0 }
    }

    /// Adds the words of the next bytes to `sum`, which is the whole vector's.
    ///
    /// # Errors
    /// [`PackError::Bytes`] if there are more than a vector's, [`PackError::Words`] if `sum` has
    /// another length.
    pub fn add(&mut self, bytes: &[u8], sum: &mut [u32]) -> Result<(), PackError> {
        let Packing { words, bits } = self.packing;
        if sum.len() != words {
            return Err(PackError::Words { words: sum.len(), expected: words });
        }
        self.read = self.read.saturating_add(bytes.len());
        if self.read > self.packing.bytes() {
            return Err(PackError::Bytes { bytes: self.read, expected: self.packing.bytes() });
        }
        let (quads, rest) = bytes.as_chunks::<4>();
        for quad in quads {
            self.take(u64::from(u32::from_le_bytes(*quad)), 32, bits, sum);
        }
        for byte in rest {
            self.take(u64::from(*byte), 8, bits, sum);
        }
        Ok(())
    }

    /// Takes up to 32 more bits and gives their words away.
    fn take(&mut self, read: u64, count: u32, bits: u32, sum: &mut [u32]) {
        self.pending |= read << self.held;
        self.held += count;
        while self.held >= bits && self.next < sum.len() {
            let word = self.pending as u32 & self.packing.modulus_mask();
            sum[self.next] = sum[self.next].wrapping_add(word);
            self.next += 1;
            self.pending >>= bits;
            self.held -= bits;
        }
    }

    /// Checks that the vector is whole.
    ///
    /// # Errors
    /// [`PackError::Bytes`] if bytes lack, [`PackError::Padding`].
    pub fn finish(self) -> Result<(), PackError> {
        if self.read != self.packing.bytes() {
            return Err(PackError::Bytes { bytes: self.read, expected: self.packing.bytes() });
        }
        if self.pending != 0 {
            return Err(PackError::Padding { last: (self.pending << (8 - self.held)) as u8 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_word_is_lowest() {
        let packing = Packing::new(3, 12).unwrap();
        let bytes = packing.pack(&[0xabc, 0x123, 0x456]).unwrap();
        assert_eq!(bytes, [0xbc, 0x3a, 0x12, 0x56, 0x04]);
        assert_eq!(packing.unpack(&bytes).unwrap(), [0xabc, 0x123, 0x456]);
    }

    #[test]
    fn ternary_codes_take_eight_bits_for_a_hundred_clients() {
        let packing = Packing::ternary(1 << 20, 100).unwrap();
        assert_eq!(packing.bytes(), 1 << 20);
        // Three bits a lane, ten lanes in 30 bits of a word.
        let packing = Packing::ternary(1_600, 3).unwrap();
        assert_eq!((packing.words(), packing.bits(), packing.bytes()), (160, 30, 600));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Packing::new(1, 0), Err(PackError::Bits { bits: 0 }));
        assert_eq!(Packing::new(1, 33), Err(PackError::Bits { bits: 33 }));
        assert_eq!(Packing::ternary(1, u32::MAX), Err(PackError::Bits { bits: 33 }));
        let most = (1 << 31) - 1;
        assert!(Packing::ternary(16, most).is_ok_and(|packing| packing.bits() == 32));
        assert_eq!(Packing::ternary(16, most + 1), Err(PackError::Bits { bits: 33 }));
        let words = MAX_WORDS + 1;
        assert_eq!(Packing::new(words, 32), Err(PackError::Length { words }));
        assert!(serde_json::from_str::<Packing>(r#"{"words": 3, "bits": 12}"#).is_ok());
        assert!(serde_json::from_str::<Packing>(r#"{"words": 3, "bits": 60}"#).is_err());
        let packing = Packing::new(3, 12).unwrap();
        assert_eq!(packing.pack(&[1]), Err(PackError::Words { words: 1, expected: 3 }));
        assert_eq!(packing.unpack(&[0; 4]), Err(PackError::Bytes { bytes: 4, expected: 5 }));
        assert_eq!(packing.unpack(&[0; 6]), Err(PackError::Bytes { bytes: 6, expected: 5 }));
        let padding = packing.unpack(&[0, 0, 0, 0, 0x50]);
        assert_eq!(padding, Err(PackError::Padding { last: 0x50 }));
        let mut unpacker = Unpacker::new(packing);
        unpacker.add(&[0; 4], &mut [0; 3]).unwrap();
        assert_eq!(unpacker.finish(), Err(PackError::Bytes { bytes: 4, expected: 5 }));
        let wrong = Unpacker::new(packing).add(&[0; 4], &mut [0; 2]);
        assert_eq!(wrong, Err(PackError::Words { words: 2, expected: 3 }));
    }

    proptest! {
        #[test]
        fn words_come_back_and_add_up_in_any_pieces(
            words in proptest::collection::vec(any::<u32>(), 0..200),
            bits in 1u32..=32,
            pieces in proptest::collection::vec(0usize..50, 0..20),
        ) {
            let packing = Packing::new(words.len(), bits).unwrap();
            let bytes = packing.pack(&words).unwrap();
            prop_assert_eq!(bytes.len(), packing.bytes());
            let words: Vec<u32> = words.iter().map(|word| word & packing.modulus_mask()).collect();
            prop_assert_eq!(&packing.unpack(&bytes).unwrap(), &words);
            let mut sum = vec![u32::MAX; words.len()];
            let mut unpacker = Unpacker::new(packing);
            let mut rest = &bytes[..];
            for piece in pieces {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                unpacker.add(now, &mut sum).unwrap();
                rest = later;
            }
            unpacker.add(rest, &mut sum).unwrap();
            unpacker.finish().unwrap();
            let expected: Vec<u32> = words.iter().map(|word| word.wrapping_sub(1)).collect();
            prop_assert_eq!(sum, expected);
        }

        #[test]
        fn any_bytes_are_words_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            words in 0usize..40,
            bits in 1u32..=32,
        ) {
            let packing = Packing::new(words, bits).unwrap();
            if let Ok(words) = packing.unpack(&bytes) {
                prop_assert_eq!(packing.pack(&words).unwrap(), bytes);
            }
        }
    }
}
