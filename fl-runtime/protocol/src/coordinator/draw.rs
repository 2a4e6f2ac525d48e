//! Drawing a cohort, so that nobody can bring it about and everybody can check it.
//!
//! The server draws a salt for each attempt, after the clients that are online have come, and keeps
//! it with what it drew. Each client has a number that follows from the salt and its key; the
//! smallest are drawn. A client that doesn't know the salt can't look for a key of a small number;
//! once the round is over the salt is told, and with it a client finds whether it was passed over.
//! After a secure round that was abandoned, those whose sum may be known come together or stay away
//! together, whatever their numbers are.

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::Candidate;
use crate::plan::Selection;
use crate::{ClientId, Refusal, Salt, Turn, wire};

/// How a cohort was drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draw {
    /// What it followed from.
    pub salt: Salt,
    /// Clients that it was drawn from.
    pub candidates: u32,
    /// Who was drawn, in the order drawn.
    pub drawn: Vec<Candidate>,
}

impl Draw {
    /// Draws `asked` of the candidates. With weights: exponential variables of rate w (Efraimidis
    /// and Spirakis 2006), which is drawing one by one with chances in proportion to w.
    pub fn new(
        candidates: Vec<Candidate>,
        asked: usize,
        selection: Selection,
        salt: Salt,
        turn: Turn,
    ) -> Self {
        let count = candidates.len() as u32;
        let mut keyed: Vec<(f64, Candidate)> =
            candidates.into_iter().map(|c| (number(&salt, turn, selection, c), c)).collect();
        keyed.sort_by(|(a, x), (b, y)| a.total_cmp(b).then(x.client.cmp(&y.client)));
        keyed.truncate(asked);
        let drawn = keyed.into_iter().map(|(_, candidate)| candidate).collect();
        Draw { salt, candidates: count, drawn }
    }

    /// The largest number that was drawn: of those that were online nobody else had a smaller one.
    pub fn largest(&self, selection: Selection, turn: Turn) -> Option<f64> {
        self.drawn.last().map(|last| number(&self.salt, turn, selection, *last))
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let drawn = self.drawn.iter().map(|candidate| (*candidate).into()).collect();
        let (salt, candidates) = (self.salt.0.to_vec(), self.candidates);
        wire::Draw { salt, candidates, drawn }.encode_to_vec()
    }

    /// From its bytes.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for those of something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = || Refusal::Malformed("draw");
        let wire::Draw { salt, candidates, drawn } =
            wire::Draw::decode(bytes).map_err(|_| malformed())?;
        let salt = Salt::from_slice(&salt).ok_or_else(malformed)?;
        let drawn = drawn.into_iter().map(Candidate::try_from).collect::<Result<_, _>>()?;
        Ok(Draw { salt, candidates, drawn })
    }
}

/// A client's number in a draw.
///
/// ```
/// use tern_protocol::coordinator::{Candidate, Draw, number};
/// use tern_protocol::plan::Selection;
/// use tern_protocol::{ClientId, Salt, Turn};
///
/// # fn main() -> Result<(), getrandom::Error> {
/// let online: Vec<_> =
///     (0..40).map(|n| Candidate { client: ClientId::numbered(n), samples: 10 }).collect();
/// let (turn, by) = (Turn::new(1, 1), Selection::Uniform);
/// let draw = Draw::new(online.clone(), 5, by, Salt::draw()?, turn);
/// // Once the salt is told anybody who was online can check the draw.
/// let largest = draw.largest(by, turn).ok_or(getrandom::Error::UNEXPECTED)?;
/// for client in online {
///     let is_drawn = draw.drawn.contains(&client);
///     assert_eq!(number(&draw.salt, turn, by, client) <= largest, is_drawn);
/// }
/// # Ok(())
/// # }
/// ```
pub fn number(salt: &Salt, turn: Turn, selection: Selection, candidate: Candidate) -> f64 {
    let weight = match selection {
        Selection::Uniform => 1.0,
        Selection::BySamples => f64::from(candidate.samples),
    };
    -uniform(salt, turn, &candidate.client).ln() / weight
}

/// Uniform in (0, 1].
fn uniform(salt: &Salt, turn: Turn, client: &ClientId) -> f64 {
    let mut hasher = Sha256::new();
    hasher.update(b"tern draw");
    hasher.update(salt.0);
    for number in [turn.round, turn.attempt] {
        hasher.update(number.to_le_bytes());
    }
    hasher.update(client.0);
    let digest = hasher.finalize();
    let high = digest.iter().take(7).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)) >> 3;
    (high + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: u32) -> Vec<Candidate> {
        let candidate = |i: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&i.to_be_bytes());
            Candidate { client: ClientId(key), samples: 1 + i }
        };
        (0..count).map(candidate).collect()
    }

    #[test]
    fn everyone_has_the_same_chance_or_one_by_samples() {
        let rounds = 4_000;
        for selection in [Selection::Uniform, Selection::BySamples] {
            let mut counts = [0; 4];
            for round in 0..rounds {
                let turn = Turn::new(round, 1);
                let salt = Salt::simulated(7, turn);
                for winner in Draw::new(candidates(4), 1, selection, salt, turn).drawn {
                    counts[winner.samples as usize - 1] += 1;
                }
            }
            for (i, count) in counts.into_iter().enumerate() {
                let expected = match selection {
                    Selection::Uniform => 0.25,
                    Selection::BySamples => (i as f64 + 1.0) / 10.0,
                };
                // Five standard deviations.
                let slack = 5.0 * (expected * (1.0 - expected) / f64::from(rounds)).sqrt();
                let share = f64::from(count) / f64::from(rounds);
                assert!((share - expected).abs() < slack, "{selection:?} {i}: {share}");
            }
        }
    }

    #[test]
    fn the_draw_depends_on_salt_and_turn_alone() {
        let draw = |salt, turn| {
            let salt = Salt([salt; 32]);
            Draw::new(candidates(50), 5, Selection::Uniform, salt, turn).drawn
        };
        let first = draw(1, Turn::new(1, 1));
        assert_eq!(first.len(), 5);
        assert_eq!(first, draw(1, Turn::new(1, 1)));
        assert_ne!(first, draw(2, Turn::new(1, 1)));
        assert_ne!(first, draw(1, Turn::new(1, 2)));
        // Who else is online changes nothing for those who were drawn.
        let mut fewer = candidates(50);
        fewer.retain(|c| first.contains(c) || c.samples % 2 == 0);
        let salt = Salt([1; 32]);
        let again = Draw::new(fewer, 5, Selection::Uniform, salt, Turn::new(1, 1));
        assert_eq!((again.drawn, again.candidates), (first, 27));
    }

    /// Computed by Python's hashlib and math from the definition.
    #[test]
    fn numbers_are_those_of_another_implementation() {
        let (salt, turn) = (Salt([6; 32]), Turn::new(3, 2));
        for (key, samples, uniform, by_samples) in [
            (1, 1, 0.790_956_384_587_195_5, 0.790_956_384_587_195_5),
            (2, 5, 1.316_963_788_590_085, 0.263_392_757_718_016_96),
            (255, 1_000, 0.462_742_097_175_195_3, 0.000_462_742_097_175_195_34),
        ] {
            let candidate = Candidate { client: ClientId([key; 32]), samples };
            let number = |by| number(&salt, turn, by, candidate);
            assert!((number(Selection::Uniform) - uniform).abs() < 1e-12, "{key}");
            assert!((number(Selection::BySamples) - by_samples).abs() < 1e-12, "{key}");
        }
        let draw = Draw::new(candidates(9), 4, Selection::BySamples, salt, turn);
        let numbers: Vec<f64> =
            draw.drawn.iter().map(|c| number(&salt, turn, Selection::BySamples, *c)).collect();
        assert_eq!(draw.largest(Selection::BySamples, turn), numbers.last().copied());
        assert!(numbers.is_sorted());
        assert_eq!(Draw::default().largest(Selection::Uniform, turn), None);
    }

    #[test]
    fn a_draw_comes_back_from_its_bytes() {
        let turn = Turn::new(3, 2);
        let draw = Draw::new(candidates(9), 4, Selection::BySamples, Salt([8; 32]), turn);
        assert_eq!(Draw::from_bytes(&draw.to_bytes()).unwrap(), draw);
        let mut bytes = draw.to_bytes();
        bytes[1] -= 1;
        assert!(Draw::from_bytes(&bytes).is_err(), "a salt of 31 bytes");
    }
}
