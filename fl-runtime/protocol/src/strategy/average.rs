//! FedAvg.

use super::{Strategy, StrategyState};

/// FedAvg (McMahan et al. 2017, algorithm 1): model += rate · mean. With a rate of 1 and deltas
/// weighted by samples that is the weighted mean of the clients' models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Average {
    /// Factor.
    pub learning_rate: f32,
}

impl Strategy for Average {
    fn name(&self) -> &str {
        "average"
    }

    fn step(&self, model: &mut [f32], direction: &[f32], state: &mut StrategyState) {
        state.steps += 1;
        for (x, d) in model.iter_mut().zip(direction) {
            *x += self.learning_rate * d;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_added() {
        let mut model = [1.0, 2.0];
        Average { learning_rate: 0.5 }.step(
            &mut model,
            &[2.0, -4.0],
            &mut StrategyState::default(),
        );
        assert_eq!(model, [2.0, 0.0]);
    }
}
