//! What answers cost: Rényi differential privacy (Mironov 2017), composed by addition and
//! converted to (ε, δ).
//!
//! A teacher is trained on a part of the data that no other teacher saw, so that a record replaced
//! changes one vote: two counts by one each, at most. Data sets that differ by a record replaced
//! are what these costs tell apart; not such with one more or less, since how parts are dealt at
//! random depends on the number of records. From that follow the
//! *data-independent* costs, which hold for whatever votes there are: [`gaussian`], [`laplace`],
//! [`check`]. Where teachers agree, an answer tells less than that: [`gaussian_given`] and
//! [`pure_given`] bound the cost by the probability q that the answer is not the plurality's.
//! These *data-dependent* costs depend on private votes, so that they may be looked at by who
//! owns the data, but neither decide nor be published as they are.
//!
//! ```
//! use tern_methods::teach::accountant::{check, gaussian, gaussian_given, log_mistake_gaussian};
//!
//! // A hundred answers with noise of deviation 40 on each count.
//! let epsilon = gaussian(40.0).times(100).epsilon(1e-5);
//! assert!((1.75..1.77).contains(&epsilon));
//! // Checks whether the teachers agree cost a little more.
//! let checked = gaussian(40.0).times(100).plus(&check(150.0).times(100));
//! assert!((epsilon..1.9).contains(&checked.epsilon(1e-5)));
//!
//! // In truth less was told: nine classes lacked 250 votes each.
//! let log_q = log_mistake_gaussian([250.0; 9].into_iter(), 40.0);
//! assert!(gaussian_given(log_q, 40.0).times(100).epsilon(1e-5) < epsilon);
//! ```

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// Orders λ of the curves: 1.1 to 1001, 25 a decade of λ − 1.
pub static ORDERS: LazyLock<Vec<f64>> =
    LazyLock::new(|| (0..=100).map(|i| 1.0 + f64::powf(10.0, f64::from(i) / 25.0 - 1.0)).collect());

/// Rényi divergence at each of [`ORDERS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve(pub(super) Vec<f64>);

impl Curve {
    /// The cost of nothing.
    pub fn zero() -> Self {
        Curve(vec![0.0; ORDERS.len()])
    }

    /// The divergence as a function of the order.
    pub fn of(divergence: impl Fn(f64) -> f64) -> Self {
        Curve(ORDERS.iter().map(|order| divergence(*order)).collect())
    }

    /// Whether it has a cost at each order that can be one: for curves that were read.
    pub(super) fn is_sound(&self) -> bool {
        self.0.len() == ORDERS.len() && self.0.iter().all(|cost| *cost >= 0.0 && cost.is_finite())
    }

    /// The cost of both (Mironov 2017, Proposition 1).
    pub fn plus(&self, other: &Curve) -> Self {
        Curve(self.0.iter().zip(&other.0).map(|(a, b)| a + b).collect())
    }

    /// The cost of `times` of it.
    pub fn times(&self, times: u64) -> Self {
        Curve(self.0.iter().map(|cost| cost * times as f64).collect())
    }

    /// ε at δ: the least over the orders (Mironov 2017, Proposition 3), the conversion that
    /// PATE's figures are made with. 0 for the cost of nothing.
    pub fn epsilon(&self, delta: f64) -> f64 {
        if self.0.iter().all(|cost| *cost == 0.0) {
            return 0.0;
        }
        let at = |(cost, order): (&f64, &f64)| cost - delta.ln() / (order - 1.0);
        self.0.iter().zip(&*ORDERS).map(at).fold(f64::INFINITY, f64::min)
    }
}

/// An answer of GNMax, the plurality after Gaussian noise of deviation `sigma` on each count:
/// λ/σ² (Papernot et al. 2018, Proposition 8).
pub fn gaussian(sigma: f64) -> Curve {
    Curve::of(|order| order / (sigma * sigma))
}

/// Whether the largest count and Gaussian noise reach a threshold: λ/(2σ²), as one count
/// changes by one (Papernot et al. 2018, section 4.1).
pub fn check(sigma: f64) -> Curve {
    gaussian(std::f64::consts::SQRT_2 * sigma)
}

/// The pure privacy of an answer of LNMax with noise of this scale, 1/γ there: ε = 2γ
/// (Papernot et al. 2017, section 3.2).
pub fn laplace_epsilon(scale: f64) -> f64 {
    2.0 / scale
}

/// An answer of LNMax, the plurality after Laplace noise of this scale on each count: 2γ²λ
/// (Papernot et al. 2017, Theorem 2), and no more than 2γ.
pub fn laplace(scale: f64) -> Curve {
    let pure = laplace_epsilon(scale);
    Curve::of(|order| pure.min(pure * pure * order / 2.0))
}

/// ln(1 − eˣ) for x < 0.
fn ln_1m_exp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
}

fn ln_sum(a: f64, b: f64) -> f64 {
    let most = a.max(b);
    if most == f64::NEG_INFINITY { most } else { most + ((a - most).exp() + (b - most).exp()).ln() }
}

/// [`gaussian`], given a bound on ln q (Papernot et al. 2018, Theorem 6, at the orders of
/// Proposition 10); never more than [`gaussian`].
pub fn gaussian_given(log_q: f64, sigma: f64) -> Curve {
    let variance = sigma * sigma;
    let independent = gaussian(sigma);
    if log_q == f64::NEG_INFINITY {
        return Curve::zero();
    }
    // Another way of writing that the theorem's conditions don't hold.
    let mu2 = (variance * -log_q.min(0.0)).sqrt();
    let mu1 = mu2 + 1.0;
    if mu2 <= 1.0 {
        return independent;
    }
    let (epsilon1, epsilon2) = (mu1 / variance, mu2 / variance);
    let most =
        (mu2 - 1.0) * epsilon2 - mu2 * ((1.0 / (mu1 - 1.0)).ln_1p() + (1.0 / (mu2 - 1.0)).ln_1p());
    if log_q > most || -log_q <= epsilon2 {
        return independent;
    }
    let log_p = ln_1m_exp(log_q);
    let log_a = log_p - ln_1m_exp((log_q + epsilon2) * (1.0 - 1.0 / mu2));
    let log_b = epsilon1 - log_q / (mu1 - 1.0);
    let bound = |order: f64| {
        let sum = ln_sum(log_p + (order - 1.0) * log_a, log_q + (order - 1.0) * log_b);
        if order < mu1 { sum / (order - 1.0) } else { f64::INFINITY }
    };
    Curve::of(|order| bound(order).max(0.0).min(order / variance))
}

/// An answer that is `pure`-differentially private, given a bound on ln q (Papernot et al. 2017,
/// Theorem 3); never more than without it.
pub fn pure_given(log_q: f64, pure: f64) -> Curve {
    let independent = |order: f64| pure.min(pure * pure * order / 2.0);
    if log_q == f64::NEG_INFINITY {
        return Curve::zero();
    }
    let q = log_q.exp();
    if q >= 1.0 / (pure.exp() + 1.0) {
        return Curve::of(independent);
    }
    Curve::of(|order| {
        let log_p = (-q).ln_1p();
        let agree = log_p + (order - 1.0) * (log_p - ln_1m_exp(pure + log_q));
        let other = log_q + (order - 1.0) * pure;
        (ln_sum(agree, other) / (order - 1.0)).max(0.0).min(independent(order))
    })
}

/// ln of an upper bound of erfc(x) that is exact at 0 and within 6 % anywhere above (Abramowitz
/// and Stegun 1964, 7.1.13).
fn ln_erfc(x: f64) -> f64 {
    if x <= 0.0 {
        return std::f64::consts::LN_2;
    }
    let pi = std::f64::consts::PI;
    (2.0 / pi.sqrt()).ln() - x * x - (x + (x * x + 4.0 / pi).sqrt()).ln()
}

/// ln of a bound of the probability that GNMax answers with another class than the plurality's
/// (Papernot et al. 2018, Proposition 7). `gaps` are the votes that other classes lack.
pub fn log_mistake_gaussian(gaps: impl Iterator<Item = f64>, sigma: f64) -> f64 {
    let each = gaps.map(|gap| ln_erfc(gap / (2.0 * sigma)) - std::f64::consts::LN_2);
    each.fold(f64::NEG_INFINITY, ln_sum).min(0.0)
}

/// The same for LNMax (Papernot et al. 2017, Lemma 4).
pub fn log_mistake_laplace(gaps: impl Iterator<Item = f64>, scale: f64) -> f64 {
    let each = gaps.map(|gap| {
        let gap = gap.max(0.0) / scale;
        ((2.0 + gap) / 4.0).ln() - gap
    });
    each.fold(f64::NEG_INFINITY, ln_sum).min(0.0)
}

/// ln of a bound of the probability of the less probable outcome of [`check`], where the
/// largest count is `distance` votes from the threshold.
pub fn log_mistake_check(distance: f64, sigma: f64) -> f64 {
    let x = distance / (std::f64::consts::SQRT_2 * sigma);
    (ln_erfc(x) - std::f64::consts::LN_2).min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DELTA: f64 = 1e-5;

    /// min over λ > 1 of ρλ + ln(1/δ)/(λ − 1).
    fn closed_form(rho: f64, delta: f64) -> f64 {
        rho + 2.0 * (rho * (1.0 / delta).ln()).sqrt()
    }

    /// (2.8) The Gaussian mechanism has a closed form; a grid of orders comes close, from above.
    #[test]
    fn gaussian_answers_cost_what_the_closed_form_says() {
        for (sigma, answers) in [(40.0, 1), (40.0, 286), (40.0, 1664), (5.0, 100), (150.0, 10_000)]
        {
            let exact = closed_form(answers as f64 / (sigma * sigma), DELTA);
            let found = gaussian(sigma).times(answers).epsilon(DELTA);
            assert!((1.0 - 1e-12..1.005).contains(&(found / exact)), "{found} for {exact}");
        }
        let both = gaussian(40.0).times(286).plus(&check(150.0).times(640));
        let exact = closed_form(286.0 / 1600.0 + 640.0 / 45_000.0, DELTA);
        assert!((both.epsilon(DELTA) / exact - 1.0).abs() < 0.005);
    }

    /// (2.8) PATE 2017: γ = 0.05, δ = 1e-5: 5.80 for 100 queries by strong composition, and
    /// 2.04 and 8.03 for 100 and 1,000 by the data-dependent bound of real votes, which lies
    /// between that of unanimous teachers and the data-independent one.
    #[test]
    fn laplace_answers_agree_with_the_published_figures() {
        for (answers, published) in [(100, 2.04), (1000, 8.03)] {
            let without = laplace(20.0).times(answers).epsilon(DELTA);
            let q = log_mistake_laplace([250.0; 9].into_iter(), 20.0);
            let unanimous = pure_given(q, 0.1).times(answers).epsilon(DELTA);
            assert!(unanimous < published && published < without, "{unanimous} {without}");
        }
        let hundred = laplace(20.0).times(100).epsilon(DELTA);
        let strong = 0.1 * (200.0 * (1.0 / DELTA).ln()).sqrt() + 100.0 * 0.1 * 0.1;
        assert!((strong - 5.80).abs() < 0.005, "as published: {strong}");
        assert!(hundred < strong && hundred > 5.25, "moments are tighter: {hundred}");
        // A single answer costs no more than its pure privacy and the conversion's part.
        assert!(laplace(20.0).0.iter().all(|cost| *cost <= 0.1));
    }

    /// (2.8) PATE 2018, Table 1: confident GNMax, MNIST (T = 200, σ 150 and 40) 286 answers,
    /// ε = 1.97, and Adult (T = 300, σ 200 and 40) 524 answers, ε = 1.90, both data-dependent.
    #[test]
    fn confident_answers_agree_with_the_published_figures() {
        let unanimous = log_mistake_gaussian([250.0; 9].into_iter(), 40.0);
        for (answers, sigma1, published) in [(286, 150.0, 1.97), (524, 200.0, 1.90)] {
            let most = gaussian(40.0).times(answers).plus(&check(sigma1).times(answers));
            let least = gaussian_given(unanimous, 40.0).times(answers);
            let (least, most) = (least.epsilon(DELTA), most.epsilon(DELTA));
            assert!(least < published && published < most, "{least} {published} {most}");
        }
    }

    /// What the code of PATE's authors says (`tests/fixtures/make_pate.py`).
    #[derive(Deserialize)]
    struct Reference {
        places: Vec<usize>,
        delta: f64,
        bounds: Vec<Bound>,
        mistakes: Vec<Mistake>,
        confident: Vec<Confident>,
    }

    /// The cost of an answer given ln q; `of` is sigma, or the pure epsilon.
    #[derive(Deserialize)]
    struct Bound {
        noise: String,
        log_q: f64,
        of: f64,
        cost: Vec<f64>,
    }

    /// ln q by either noise.
    #[derive(Deserialize)]
    struct Mistake {
        votes: Vec<f64>,
        scale: f64,
        gaussian: f64,
        laplace: f64,
    }

    /// `times` checks and answers to all votes of the mistakes.
    #[derive(Deserialize)]
    struct Confident {
        threshold: f64,
        check: f64,
        sigma: f64,
        times: u64,
        cost: Vec<f64>,
        epsilon: f64,
    }

    fn reference() -> Reference {
        serde_json::from_str(include_str!("../../tests/fixtures/pate.json")).unwrap()
    }

    /// The largest count, and what others lack of it.
    fn gaps(votes: &[f64]) -> (f64, impl Iterator<Item = f64> + '_) {
        let first = (0..votes.len()).max_by(|a, b| votes[*a].total_cmp(&votes[*b]).then(b.cmp(a)));
        let first = first.unwrap();
        let others = votes.iter().enumerate().filter(move |(class, _)| *class != first);
        (votes[first], others.map(move |(_, count)| votes[first] - count))
    }

    /// (2.8) Given q, costs are those of the authors' code, and so is q but for the bound of erfc
    /// here, which is at most 6 % above it.
    #[test]
    fn costs_given_votes_are_those_of_the_authors_code() {
        let Reference { places, delta, bounds, mistakes, confident } = reference();
        assert_eq!((bounds.len(), mistakes.len(), confident.len()), (14, 20, 2));
        for Bound { noise, log_q, of, cost } in bounds {
            let curve = match noise.as_str() {
                "gaussian" => gaussian_given(log_q, of),
                _ => pure_given(log_q, of),
            };
            for (place, cost) in places.iter().zip(cost) {
                // Next to nothing is left of large terms at some orders.
                let (ours, off) = (curve.0[*place], 1e-12 + 1e-5 * cost);
                assert!((ours - cost).abs() < off, "{noise}, {log_q}, {of}: {ours} and {cost}");
            }
        }
        for Mistake { votes, scale, gaussian, laplace } in &mistakes {
            // Theirs is no more than that of a guess.
            let guess = (1.0 - 1.0 / votes.len() as f64).ln();
            let capped = |log_q: f64| (log_q - guess).abs() < 1e-12;
            let ours = log_mistake_gaussian(gaps(votes).1, *scale);
            assert!(ours > gaussian - 1e-9, "{votes:?}, {scale}: {ours} and {gaussian}");
            assert!(capped(*gaussian) || ours < gaussian + 0.06, "{ours} and {gaussian}");
            let ours = log_mistake_laplace(gaps(votes).1, *scale);
            assert!(capped(*laplace) || (ours - laplace).abs() < 1e-9, "{ours} and {laplace}");
        }
        for Confident { threshold, check, sigma, times, cost, epsilon } in confident {
            let mut total = Curve::zero();
            for votes in mistakes.iter().step_by(4).map(|mistake| &mistake.votes) {
                let (most, gaps) = gaps(votes);
                let passed = log_mistake_check((threshold - most).abs(), check);
                let asked = gaussian_given(passed, std::f64::consts::SQRT_2 * check);
                let answer = gaussian_given(log_mistake_gaussian(gaps, sigma), sigma);
                total = total.plus(&asked.plus(&answer).times(times));
            }
            for (place, cost) in places.iter().zip(cost) {
                let ratio = total.0[*place] / cost;
                assert!((1.0 - 1e-6..1.06).contains(&ratio), "{} and {cost}", total.0[*place]);
            }
            // They have a tenth of the orders here.
            let ratio = total.epsilon(delta) / epsilon;
            assert!((0.9..1.06).contains(&ratio), "{} and {epsilon}", total.epsilon(delta));
        }
    }

    /// With two classes the divergence can be computed: no bound is below it.
    #[test]
    fn bounds_hold_for_what_they_bound() {
        // The tail of a normal distribution, by Simpson's rule.
        let tail = |x: f64| {
            let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let step = 12.0 / 6000.0;
            let term = |i: usize| {
                let weight = if i == 0 || i == 6000 {
                    1.0
                } else if i % 2 == 1 {
                    4.0
                } else {
                    2.0
                };
                weight * density(x + i as f64 * step)
            };
            (0..=6000).map(term).sum::<f64>() * step / 3.0
        };
        let gauss = |gap: f64, scale: f64| tail(gap / (std::f64::consts::SQRT_2 * scale));
        let laplace_q = |gap: f64, scale: f64| {
            let x = gap / scale;
            (2.0 + x) / 4.0 * (-x).exp()
        };
        let given: [fn(f64, f64) -> Curve; 2] = [
            |gap, scale| {
                let q = log_mistake_gaussian([gap].into_iter(), scale);
                gaussian_given(q, scale)
            },
            |gap, scale| {
                let q = log_mistake_laplace([gap].into_iter(), scale);
                pure_given(q, laplace_epsilon(scale))
            },
        ];
        let mistakes: [&dyn Fn(f64, f64) -> f64; 2] = [&gauss, &laplace_q];
        for (given, mistake) in given.iter().zip(mistakes) {
            for (gap, scale) in [(20.0, 5.0), (60.0, 10.0), (100.0, 20.0), (200.0, 20.0)] {
                let q = mistake(gap, scale);
                for near in [mistake(gap - 2.0, scale), mistake(gap + 2.0, scale)] {
                    for (bound, order) in given(gap, scale).0.iter().zip(&*ORDERS) {
                        let part = |p: f64, r: f64| order * p.ln() + (1.0 - order) * r.ln();
                        let both = ln_sum(part(q, near), part(1.0 - q, 1.0 - near));
                        let exact = both / (order - 1.0);
                        assert!(exact <= bound + 1e-9, "{gap} {scale} {order}: {exact} {bound}");
                    }
                }
            }
        }
    }

    #[test]
    fn erfc_is_bounded_from_above() {
        // Values of erfc.
        for (x, exact) in [(0.1, 0.887537), (0.5, 0.479500), (1.0, 0.157299), (3.0, 2.20905e-5)] {
            let bound = ln_erfc(x).exp();
            assert!(bound >= exact && bound < 1.06 * exact, "{x}: {bound} for {exact}");
        }
        assert_eq!(ln_erfc(-1.0).exp(), 2.0);
    }

    proptest! {
        /// (2.8) More answers, less noise and a smaller δ cost more; agreement never costs.
        #[test]
        fn costs_are_monotone(
            sigma in 1.0..500.0f64,
            factor in 1.01..4.0f64,
            answers in 1..5000u64,
            log_delta in -30.0..-2.0f64,
            log_q in -400.0..0.0f64,
        ) {
            let delta = log_delta.exp();
            let costs: [fn(f64) -> Curve; 3] = [gaussian, laplace, check];
            for cost in costs {
                let epsilon = cost(sigma).times(answers).epsilon(delta);
                prop_assert!(epsilon > 0.0 && epsilon.is_finite());
                prop_assert!(cost(sigma).times(answers + 1).epsilon(delta) > epsilon);
                prop_assert!(cost(sigma * factor).times(answers).epsilon(delta) < epsilon);
                prop_assert!(cost(sigma).times(answers).epsilon(delta / 2.0) > epsilon);
            }
            let pairs = [
                (gaussian_given(log_q, sigma), gaussian(sigma)),
                (pure_given(log_q, laplace_epsilon(sigma)), laplace(sigma)),
            ];
            for (given, independent) in pairs {
                for (given, independent) in given.0.iter().zip(&independent.0) {
                    prop_assert!(given <= independent && *given >= 0.0, "{given} {independent}");
                }
            }
        }

        /// The wider the gap, the less probable a mistake.
        #[test]
        fn wider_gaps_make_fewer_mistakes(gap in 1.0..400.0f64, more in 1.0..50.0f64, sigma in 5.0..100.0f64) {
            let narrow = || [gap, gap + 3.0].into_iter();
            let wide = || [gap + more, gap + 3.0 + more].into_iter();
            prop_assert!(log_mistake_gaussian(wide(), sigma) <= log_mistake_gaussian(narrow(), sigma));
            prop_assert!(log_mistake_laplace(wide(), sigma) <= log_mistake_laplace(narrow(), sigma));
            prop_assert!(log_mistake_check(gap + more, sigma) < log_mistake_check(gap, sigma));
        }
    }
}
