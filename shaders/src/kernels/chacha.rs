//! ChaCha20 (RFC 8439), the stream that masks come from, and the table of masks that kernels
//! read.
//!
//! ```rust
//! use tern_shaders::kernels::chacha::{Mask, add_block};
//!
//! let mask = Mask::new(&[7; 32], &[1; 12]);
//! let mut words = [5; 16];
//! add_block(&mut words, &mask, 0);
//! assert_ne!(words, [5; 16]);
//! add_block(&mut words, &mask.negated(), 0);
//! assert_eq!(words, [5; 16]);
//! ```

/// Words of a key stream block.
pub const BLOCK: usize = 16;
/// Words a mask takes in a kernel's table: 8 of key, 3 of nonce, the sign.
pub const WORDS_A_MASK: usize = 12;
/// Double rounds a block takes.
const DOUBLE_ROUNDS: usize = 10;
/// "expand 32-byte k"
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

fn quarter_round(s: &mut [u32; BLOCK], a: usize, b: usize, c: usize, d: usize) {
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotate_left(16);
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotate_left(12);
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotate_left(8);
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotate_left(7);
}

/// One block of the key stream (RFC 8439, section 2.3). Its words are the stream's bytes in
/// little-endian order.
pub fn block(key: &[u32; 8], counter: u32, nonce: &[u32; 3]) -> [u32; BLOCK] {
    let mut start = [0; BLOCK];
    start[..4].copy_from_slice(&CONSTANTS);
    start[4..12].copy_from_slice(key);
    start[12] = counter;
    start[13..].copy_from_slice(nonce);
    let mut s = start;
    for _ in 0..DOUBLE_ROUNDS {
        for i in 0..4 {
            quarter_round(&mut s, i, 4 + i, 8 + i, 12 + i);
        }
        for i in 0..4 {
            quarter_round(&mut s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
        }
    }
    for (word, first) in s.iter_mut().zip(start) {
        *word = word.wrapping_add(first);
    }
    s
}

/// One mask: a stream, added or subtracted. Laid out as a kernel's table wants it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Mask {
    /// The key's 32 bytes as little-endian words.
    pub key: [u32; 8],
    /// The nonce's 12 bytes as little-endian words. A key and nonce serve for one vector.
    pub nonce: [u32; 3],
    /// What the stream is multiplied by: 1 adds it, `u32::MAX` subtracts it.
    pub sign: u32,
}

impl Mask {
    /// A mask that is added.
    pub fn new(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        let word = |bytes: &[u8], i: usize| {
            u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        };
        Self {
            key: std::array::from_fn(|i| word(key, i)),
            nonce: std::array::from_fn(|i| word(nonce, i)),
            sign: 1,
        }
    }

    /// The mask that cancels this one.
    pub fn negated(self) -> Self {
        Self { sign: self.sign.wrapping_neg(), ..self }
    }

    /// The mask at the start of `table`.
    pub fn of(table: &[u32]) -> Self {
        let mut words = [0u32; WORDS_A_MASK];
        words.copy_from_slice(&table[..WORDS_A_MASK]);
        bytemuck::cast(words)
    }
}

impl std::fmt::Debug for Mask {
    /// Keeps the key out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").field("sign", &self.sign).finish_non_exhaustive()
    }
}

/// Adds a mask's block `counter` to 16 words, mod 2^32.
pub fn add_block(words: &mut [u32], mask: &Mask, counter: u32) {
    for (word, stream) in words.iter_mut().zip(block(&mask.key, counter, &mask.nonce)) {
        *word = word.wrapping_add(mask.sign.wrapping_mul(stream));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
    use proptest::prelude::*;

    #[test]
    fn rfc_8439_section_2_3_2() {
        let key: [u8; 32] = std::array::from_fn(|i| i as u8);
        let nonce = [0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0];
        let mask = Mask::new(&key, &nonce);
        let expected: [u32; BLOCK] = [
            0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3, 0xc7f4d1c7, 0x0368c033, 0x9aaa2204,
            0x4e6cd4c3, 0x466482d2, 0x09aa9f07, 0x05d7c214, 0xa2028bd9, 0xd19c12b5, 0xb94e16de,
            0xe883d0cb, 0x4e3c50a2,
        ];
        assert_eq!(block(&mask.key, 1, &mask.nonce), expected);
    }

    #[test]
    fn rfc_8439_appendix_a_1_vector_1() {
        let stream = block(&[0; 8], 0, &[0; 3]);
        let bytes: Vec<u8> = stream.iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(bytes[..8], [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
        assert_eq!(bytes[60..], [0xb2, 0xee, 0x65, 0x86]);
    }

    proptest! {
        #[test]
        fn equals_the_chacha20_crate(key: [u8; 32], nonce: [u8; 12], counter in 0..u32::MAX) {
            let mut bytes = [0u8; 64];
            let mut cipher = chacha20::ChaCha20::new(&key.into(), &nonce.into());
            cipher.seek(u64::from(counter) * 64);
            cipher.apply_keystream(&mut bytes);
            let mask = Mask::new(&key, &nonce);
            let stream = block(&mask.key, counter, &mask.nonce);
            let ours: Vec<u8> = stream.iter().flat_map(|w| w.to_le_bytes()).collect();
            prop_assert_eq!(&ours[..], &bytes[..]);
        }

        #[test]
        fn a_mask_and_its_negative_cancel(key: [u8; 32], words: [u32; BLOCK], counter: u32) {
            let mask = Mask::new(&key, &[7; 12]);
            let mut masked = words;
            add_block(&mut masked, &mask, counter);
            prop_assert_ne!(masked, words);
            add_block(&mut masked, &mask.negated(), counter);
            prop_assert_eq!(masked, words);
        }
    }
}
