//! A client's randomness: one 32-byte seed, and streams drawn from keys.

use tern_shaders::kernels::chacha::{BLOCK, block};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::field::P;

/// 32 uniform bytes that everything a client draws in one session comes from. Moved into the
/// session: a seed serves once.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Seed(pub(super) [u8; 32]);

impl Seed {
    /// From the system's generator.
    ///
    /// # Errors
    /// What the system says when it has no randomness to give.
    pub fn from_system() -> Result<Self, getrandom::Error> {
        let mut seed = Seed([0; 32]);
        getrandom::fill(&mut seed.0)?;
        Ok(seed)
    }

    /// From given bytes, for simulations that are to be replayed.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Seed(bytes)
    }
}

/// Numbers from the ChaCha20 stream of a key that is used for nothing else.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Random {
    key: [u32; 8],
    words: [u32; BLOCK],
    used: usize,
    counter: u32,
}

impl Random {
    /// The stream of a key, from its beginning.
    pub fn new(key: &[u8; 32]) -> Self {
        let mut random = Random { key: [0; 8], words: [0; BLOCK], used: BLOCK, counter: 0 };
        for (word, bytes) in random.key.iter_mut().zip(key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        random
    }

    fn word(&mut self) -> u32 {
        if self.used == BLOCK {
            self.words = block(&self.key, self.counter, &[0; 3]);
            self.counter += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// A uniform number of 64 bits.
    pub fn long(&mut self) -> u64 {
        u64::from(self.word()) | u64::from(self.word()) << 32
    }

    /// A uniform element of the field of 2^61 − 1.
    pub(crate) fn element(&mut self) -> u64 {
        loop {
            let element = Zeroizing::new(self.long() & P);
            // One value in 2^61 is drawn again.
            if *element != P {
                return *element;
            }
        }
    }

    /// A uniform number below `bound`, which isn't zero.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let bound = u64::from(bound);
        let fair = fair(bound);
        loop {
            let number = self.long();
            if number < fair {
                return (number % bound) as u32;
            }
        }
    }
}

/// The largest multiple of a bound: numbers from there on would favor the small ones.
fn fair(bound: u64) -> u64 {
    u64::MAX - u64::MAX % bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_chacha20() {
        let key: [u8; 32] = std::array::from_fn(|i| i as u8);
        let mut random = Random::new(&key);
        let words: [u32; 8] =
            std::array::from_fn(|i| u32::from_le_bytes([0, 1, 2, 3].map(|j| key[4 * i + j])));
        for counter in 0..2 {
            for word in block(&words, counter, &[0; 3]) {
                assert_eq!(random.word(), word);
            }
        }
    }

    #[test]
    fn numbers_below_a_bound_are_uniform() {
        let mut random = Random::new(&[5; 32]);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7) as usize] += 1;
        }
        // The deviation of a count is 93.
        assert!(counts.iter().all(|count| (9_440..10_560).contains(count)), "{counts:?}");
    }

    #[test]
    fn as_many_numbers_give_each_one_below_a_bound() {
        for bound in [1, 2, 3, 7, 1 << 16, (1 << 31) + 1, u32::MAX.into()] {
            let numbers = fair(bound);
            assert!(numbers.is_multiple_of(bound) && u64::MAX - numbers < bound, "{bound}");
        }
    }

    #[test]
    fn seeds_of_the_system_differ() {
        assert_ne!(Seed::from_system().unwrap().0, Seed::from_system().unwrap().0);
    }
}
