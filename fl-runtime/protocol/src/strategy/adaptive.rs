//! FedAdam and FedYogi: Reddi et al., "Adaptive Federated Optimization" (ICLR 2021),
//! algorithm 2.

use super::{Strategy, StrategyState};

/// m = β1 m + (1 − β1) Δ, then model += rate · m / (√v + τ), with the second moment v by the
/// kind. m starts at 0 and v at τ², as the paper's analysis asks; there is no bias correction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    kind: Kind,
    rate: f32,
    beta1: f32,
    beta2: f32,
    tau: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// v = β2 v + (1 − β2) Δ²
    Adam,
    /// v = v − (1 − β2) Δ² sign(v − Δ²)
    Yogi,
}

impl Adaptive {
    /// FedAdam.
    pub fn adam(rate: f64, beta1: f64, beta2: f64, tau: f64) -> Self {
        Self::new(Kind::Adam, rate, beta1, beta2, tau)
    }

    /// FedYogi.
    pub fn yogi(rate: f64, beta1: f64, beta2: f64, tau: f64) -> Self {
        Self::new(Kind::Yogi, rate, beta1, beta2, tau)
    }

    fn new(kind: Kind, rate: f64, beta1: f64, beta2: f64, tau: f64) -> Self {
        let [rate, beta1, beta2, tau] = [rate, beta1, beta2, tau].map(|x| x as f32);
        Adaptive { kind, rate, beta1, beta2, tau }
    }
}

impl Strategy for Adaptive {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Adam => "adam",
            Kind::Yogi => "yogi",
        }
    }

    fn step(&self, model: &mut [f32], direction: &[f32], state: &mut StrategyState) {
        state.steps += 1;
        state.vectors.resize_with(2, Vec::new);
        let [mean, square] = state.vectors.as_mut_slice() else { return };
        mean.resize(model.len(), 0.0);
        square.resize(model.len(), self.tau * self.tau);
        let moments = mean.iter_mut().zip(square);
        for ((x, d), (m, v)) in model.iter_mut().zip(direction).zip(moments) {
            let d2 = d * d;
            *m = self.beta1 * *m + (1.0 - self.beta1) * d;
            *v = match self.kind {
                Kind::Adam => self.beta2 * *v + (1.0 - self.beta2) * d2,
                Kind::Yogi if *v == d2 => *v,
                Kind::Yogi => *v - ((1.0 - self.beta2) * d2).copysign(*v - d2),
            };
            *x += self.rate * *m / (v.sqrt() + self.tau);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's formulas in `f64`, one coordinate.
    fn reference(yogi: bool, directions: &[f64]) -> f64 {
        let (rate, beta1, beta2, tau) = (0.1, 0.9, 0.99, 0.01);
        let (mut x, mut m, mut v) = (0.5, 0.0, tau * tau);
        for d in directions {
            m = beta1 * m + (1.0 - beta1) * d;
            v = if yogi {
                let sign = if v > d * d {
                    1.0
                } else if v < d * d {
                    -1.0
                } else {
                    0.0
                };
                v - (1.0 - beta2) * d * d * sign
            } else {
                beta2 * v + (1.0 - beta2) * d * d
            };
            x += rate * m / (v.sqrt() + tau);
        }
        x
    }

    /// The sign of nothing is 0, the paper's rule where v is Δ² already.
    #[test]
    fn yogi_leaves_a_moment_that_is_right() {
        let strategy = Adaptive::yogi(0.1, 0.9, 0.75, 0.5);
        let (mut model, mut state) = ([0.0], StrategyState::default());
        // v starts at 0.25.
        strategy.step(&mut model, &[0.5], &mut state);
        assert_eq!(state.vectors[1], [0.25]);
        strategy.step(&mut model, &[1.0], &mut state);
        assert_eq!(state.vectors[1], [0.5]);
        strategy.step(&mut model, &[0.25], &mut state);
        assert_eq!(state.vectors[1], [0.5 - 0.25 * 0.0625]);
    }

    #[test]
    fn steps_are_the_papers() {
        let directions = [0.3, -0.2, 0.0, 0.05, 0.004, 1.5];
        for (yogi, strategy) in [
            (false, Adaptive::adam(0.1, 0.9, 0.99, 0.01)),
            (true, Adaptive::yogi(0.1, 0.9, 0.99, 0.01)),
        ] {
            let (mut model, mut state) = ([0.5, 0.5], StrategyState::default());
            for d in directions {
                strategy.step(&mut model, &[d as f32, 0.0], &mut state);
            }
            let error = (f64::from(model[0]) - reference(yogi, &directions)).abs();
            assert!(error < 1e-5, "{yogi}: {error}");
            // Padding stays what it is.
            assert_eq!(model[1], 0.5);
            assert_eq!((state.steps, state.vectors.len()), (6, 2));
        }
    }
}
