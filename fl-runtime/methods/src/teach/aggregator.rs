//! Votes in, a noisy label or a refusal out.

use serde::{Deserialize, Serialize};
use tern_protocol::{Error, Result};

use super::accountant::{self, Curve};
use super::noise::{Noise, on_grid};

/// Votes by which whole-number noise may favor another class more than continuous noise does:
/// P(noise ≥ m) of one is at most P(noise ≥ m − 1) of the other (Canonne et al. 2020,
/// Proposition 25), for each of two counts.
const SLACK: f64 = 1.0;

/// How votes become an answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mechanism {
    /// LNMax: the plurality after Laplace noise (Papernot et al. 2017).
    Laplace {
        /// Scale of the noise, 1/γ.
        scale: f64,
    },
    /// GNMax: the plurality after Gaussian noise (Papernot et al. 2018).
    Gaussian {
        /// Deviation of the noise.
        sigma: f64,
    },
    /// Confident GNMax: GNMax if the largest count reaches a threshold after noise of its own,
    /// else no answer (Papernot et al. 2018, Algorithm 1).
    Confident {
        /// Votes that the plurality needs.
        threshold: u32,
        /// Deviation of the noise on the largest count; costs for every query.
        check: f64,
        /// Deviation of the noise on each count; costs for every answer.
        sigma: f64,
    },
}

impl Mechanism {
    /// Refuses scales that can't be drawn.
    ///
    /// # Errors
    /// [`Error::Value`], naming the scale.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Mechanism::Laplace { scale } => on_grid("scale of Laplace noise", scale)?,
            Mechanism::Gaussian { sigma } => on_grid("sigma of Gaussian noise", sigma)?,
            Mechanism::Confident { check, sigma, .. } => {
                on_grid("sigma of the check", check)?;
                on_grid("sigma of the answer", sigma)?
            }
        };
        Ok(())
    }

    /// The data-independent cost of this many queries of which so many were answered.
    pub fn cost(&self, queries: u64, answers: u64) -> Curve {
        match *self {
            Mechanism::Laplace { scale } => accountant::laplace(scale).times(answers),
            Mechanism::Gaussian { sigma } => accountant::gaussian(sigma).times(answers),
            Mechanism::Confident { check, sigma, .. } => {
                let checks = accountant::check(check).times(queries);
                checks.plus(&accountant::gaussian(sigma).times(answers))
            }
        }
    }

    /// The data-dependent cost of a query with these votes.
    pub fn cost_given(&self, votes: &[u32], answered: bool) -> Curve {
        match *self {
            Mechanism::Laplace { scale } => {
                let q = accountant::log_mistake_laplace(gaps(votes), scale);
                accountant::pure_given(q, accountant::laplace_epsilon(scale))
            }
            Mechanism::Gaussian { sigma } => {
                let q = accountant::log_mistake_gaussian(gaps(votes), sigma);
                accountant::gaussian_given(q, sigma)
            }
            Mechanism::Confident { threshold, check, sigma } => {
                let most = votes.iter().copied().max().unwrap_or(0);
                let distance = f64::from(most.abs_diff(threshold)) - SLACK;
                let q = accountant::log_mistake_check(distance, check);
                let check = accountant::gaussian_given(q, std::f64::consts::SQRT_2 * check);
                match answered {
                    true => check.plus(&Mechanism::Gaussian { sigma }.cost_given(votes, true)),
                    false => check,
                }
            }
        }
    }
}

/// What each class but the plurality's lacks, less the slack of two counts.
fn gaps(votes: &[u32]) -> impl Iterator<Item = f64> {
    let winner = plurality(votes);
    let most = f64::from(votes.get(winner).copied().unwrap_or(0));
    let others = votes.iter().enumerate().filter(move |(class, _)| *class != winner);
    others.map(move |(_, count)| most - f64::from(*count) - 2.0 * SLACK)
}

/// The class with most votes, the first of those that have as many: the ensemble's answer
/// without noise, which is nobody's but the data owner's.
pub fn plurality(votes: &[u32]) -> usize {
    (0..votes.len()).rev().max_by_key(|class| votes[*class]).unwrap_or(0)
}

/// Answers by noisy votes (2.3).
pub struct Aggregator {
    mechanism: Mechanism,
    noise: Noise,
}

impl Aggregator {
    /// Answers by this mechanism.
    ///
    /// # Errors
    /// As [`Mechanism::validate`].
    pub fn new(mechanism: Mechanism, noise: Noise) -> Result<Self> {
        mechanism.validate()?;
        Ok(Aggregator { mechanism, noise })
    }

    /// The mechanism.
    pub fn mechanism(&self) -> &Mechanism {
        &self.mechanism
    }

    /// A label for these votes by class, or none where teachers don't agree enough. Each call
    /// costs, whoever sees what it gives; [`super::Service`] keeps the account.
    ///
    /// # Errors
    /// [`Error::Value`] for less than two classes; [`Error::Entropy`].
    pub fn answer(&mut self, votes: &[u32]) -> Result<Option<u32>> {
        if votes.len() < 2 {
            return Err(Error::value("classes of a vote", votes.len(), "two or more"));
        }
        let mut stream = self.noise.stream()?;
        let sigma = match self.mechanism {
            Mechanism::Laplace { scale } => {
                let scale = on_grid("scale", scale)?;
                return Ok(Some(noisiest(votes, || stream.laplace(scale))));
            }
            Mechanism::Gaussian { sigma } => sigma,
            Mechanism::Confident { threshold, check, sigma } => {
                let most = votes.iter().copied().max().unwrap_or(0);
                let check = on_grid("sigma", check)?;
                if i64::from(most) + stream.gaussian(check) < i64::from(threshold) {
                    return Ok(None);
                }
                sigma
            }
        };
        let sigma = on_grid("sigma", sigma)?;
        Ok(Some(noisiest(votes, || stream.gaussian(sigma))))
    }
}

/// The class of the largest count with noise.
fn noisiest(votes: &[u32], mut noise: impl FnMut() -> i64) -> u32 {
    let noisy = votes.iter().map(|count| i64::from(*count) + noise());
    let (class, _) = (0..).zip(noisy).max_by_key(|(_, count)| *count).unwrap_or((0, 0));
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPLIT: [u32; 4] = [90, 80, 50, 30];
    const AGREED: [u32; 4] = [3, 240, 5, 2];

    fn answers(mechanism: Mechanism, votes: &[u32]) -> Vec<Option<u32>> {
        let mut aggregator = Aggregator::new(mechanism, Noise::seeded(3)).unwrap();
        (0..300).map(|_| aggregator.answer(votes).unwrap()).collect()
    }

    fn share(answers: &[Option<u32>], of: Option<u32>) -> f64 {
        answers.iter().filter(|answer| **answer == of).count() as f64 / answers.len() as f64
    }

    /// (2.3) What teachers agree on comes through the noise; what they don't, not always.
    #[test]
    fn noise_hides_close_votes_and_not_clear_ones() {
        for mechanism in [Mechanism::Laplace { scale: 20.0 }, Mechanism::Gaussian { sigma: 40.0 }] {
            assert!(share(&answers(mechanism, &AGREED), Some(1)) > 0.99, "{mechanism:?}");
            let split = answers(mechanism, &SPLIT);
            let (first, second) = (share(&split, Some(0)), share(&split, Some(1)));
            assert!(
                first > second && first < 0.8 && second > 0.1,
                "{mechanism:?} {first} {second}"
            );
        }
        assert_eq!((plurality(&SPLIT), plurality(&AGREED), plurality(&[1, 2, 2])), (0, 1, 1));
    }

    /// (2.8) The confident aggregator answers only where the teachers agree.
    #[test]
    fn the_confident_one_answers_where_teachers_agree() {
        let mechanism = Mechanism::Confident { threshold: 170, check: 20.0, sigma: 10.0 };
        let agreed = answers(mechanism, &AGREED);
        assert!(share(&agreed, Some(1)) > 0.99);
        assert!(share(&answers(mechanism, &SPLIT), None) > 0.99);
    }

    /// (2.8) Every query pays for the check, and only an answer for itself.
    #[test]
    fn refusals_cost_the_check_alone() {
        let confident = Mechanism::Confident { threshold: 200, check: 150.0, sigma: 40.0 };
        assert_eq!(confident.cost(10, 0), accountant::check(150.0).times(10));
        let one = confident.cost(10, 1);
        assert_eq!(one, confident.cost(10, 0).plus(&accountant::gaussian(40.0)));
        let plain = Mechanism::Gaussian { sigma: 40.0 };
        assert_eq!(plain.cost(10, 10), accountant::gaussian(40.0).times(10));
    }

    /// (2.8) Agreement makes answers cheap, for the data-dependent account only.
    #[test]
    fn agreement_is_cheap_given_the_votes() {
        let confident = Mechanism::Confident { threshold: 120, check: 40.0, sigma: 30.0 };
        let mechanisms =
            [Mechanism::Laplace { scale: 20.0 }, Mechanism::Gaussian { sigma: 30.0 }, confident];
        for mechanism in mechanisms {
            let epsilon = |curve: Curve| curve.times(500).epsilon(1e-5);
            let [agreed, split] =
                [AGREED, SPLIT].map(|votes| epsilon(mechanism.cost_given(&votes, true)));
            let independent = epsilon(mechanism.cost(1, 1));
            assert!(agreed < 0.7 * independent, "{mechanism:?} {agreed} {independent}");
            assert!(agreed < split && split <= independent * (1.0 + 1e-12), "{mechanism:?}");
        }
    }

    #[test]
    fn bad_scales_and_votes_are_refused() {
        let new = |mechanism| Aggregator::new(mechanism, Noise::seeded(1)).map(|_| ());
        let bad = [
            Mechanism::Laplace { scale: 0.0 },
            Mechanism::Gaussian { sigma: f64::NAN },
            Mechanism::Confident { threshold: 1, check: 1e9, sigma: 2.0 },
            Mechanism::Confident { threshold: 1, check: 2.0, sigma: -2.0 },
        ];
        for mechanism in bad {
            assert!(new(mechanism).unwrap_err().to_string().contains("expected 1 to"));
        }
        let mechanism = Mechanism::Gaussian { sigma: 2.0 };
        let mut aggregator = Aggregator::new(mechanism, Noise::seeded(1)).unwrap();
        assert!(aggregator.answer(&[5]).unwrap_err().to_string().contains("two or more"));
    }
}
