//! Cross-entropy with weights of the classes, label smoothing, or as a sum.
//!
//! ```rust
//! # use tern_engine::{Arena, Device, Init, Parameters};
//! use tern_engine::ops::loss::{CrossEntropy, Reduction};
//! use tern_engine::{Data, Element, Graph};
//!
//! # fn main() -> tern_engine::Result<()> {
//! # let mut parameters = Parameters::new();
//! # parameters.add("weight", &[1], Init::Zeros)?;
//! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let logits = graph.constant(0.0, &[2, 4]);
//! let targets = graph.input("targets", &[2], Element::U32);
//! let options = CrossEntropy::new().label_smoothing(0.1).reduction(Reduction::Sum);
//! let loss = graph.cross_entropy_with(logits, targets, &options)?;
//! graph.keep(loss);
//! let mut plan = graph.forward()?;
//! plan.write(targets, &Data::U32(vec![3, 0]))?;
//! plan.run(1)?;
//! let loss = plan.read(loss)?.floats()?;
//! assert!((loss[0] - 2.0 * 4f32.ln()).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```

use tern_shaders::Element;
use tern_shaders::kernels::loss::weighted::{
    TARGET_WEIGHTS, TargetWeights, WEIGHTED_CROSS_ENTROPY_BACKWARD, WEIGHTED_CROSS_ENTROPY_FORWARD,
    WeightedCrossEntropyBackward, WeightedCrossEntropyForward,
};
use tern_shaders::kernels::optimizer::{MEAN_OF_PARTS, MeanOfParts};
use tern_shaders::kernels::pointwise::{FILL, Fill};

use crate::ops::{Case, codes, noise};
use crate::{Data, Error, Graph, Operand, Result, Tensor};

/// What becomes of the losses of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduction {
    /// Their mean, by the weights of their targets where classes have weights.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// Options of a cross-entropy, as `torch.nn.CrossEntropyLoss` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CrossEntropy {
    /// How much each class counts, `[classes]`; all the same by default.
    pub class_weights: Option<Tensor>,
    /// Share of each target that goes to all classes alike, in [0, 1]; 0 by default (Szegedy et al.
    /// 2016, section 7).
    pub label_smoothing: f32,
    /// What becomes of the losses of rows; their mean by default.
    pub reduction: Reduction,
}

impl CrossEntropy {
    /// The mean, without weights and smoothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// With how much each class counts, `[classes]`.
    pub fn class_weights(mut self, weights: impl Into<Option<Tensor>>) -> Self {
        self.class_weights = weights.into();
        self
    }

    /// With a share of each target that goes to all classes alike.
    pub fn label_smoothing(mut self, share: f32) -> Self {
        self.label_smoothing = share;
        self
    }

    /// With another reduction.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl Graph {
    /// What a part of a batch counts for: 1 / normalizer, 0 without targets.
    fn sum_of_weights(&mut self, normalizer: Tensor) -> Tensor {
        let sum = self.tensor("sum of weights", &[1], Element::F32);
        let params = Fill { n: 1, offset: 0, stride: 1, value: 1.0 };
        self.dispatch(&FILL, &params, &[sum.into()]);
        let params = MeanOfParts { offset: 0, n: 1, stride: 1 };
        self.dispatch(&MEAN_OF_PARTS, &params, &[normalizer.into(), sum.into()]);
        sum
    }

    /// [`Graph::cross_entropy`] with options. The gradient doesn't reach the weights.
    ///
    /// # Errors
    /// As [`Graph::cross_entropy`]; [`Error::Shape`] unless there is one weight a class,
    /// [`Error::Value`] for a smoothing outside of 0 to 1.
    pub fn cross_entropy_with(
        &mut self,
        logits: Tensor,
        targets: Tensor,
        options: &CrossEntropy,
    ) -> Result<Tensor> {
        if *options == CrossEntropy::new() {
            return self.cross_entropy(logits, targets);
        }
        let op = "cross_entropy";
        let (rows, classes) = self.check_targets(op, logits, targets)?;
        let smoothing = options.label_smoothing;
        if !(0.0..=1.0).contains(&smoothing) {
            return Err(Error::value("label_smoothing", smoothing, "0 to 1"));
        }
        let weights = match options.class_weights {
            Some(weights) => {
                self.check_floats(op, weights)?;
                if self.shape(weights) != [classes as usize] {
                    let what = format!("weights {:?} of {classes} classes", self.shape(weights));
                    return Err(Error::shape(op, what));
                }
                weights
            }
            None => self.constant(1.0, &[classes as usize]),
        };
        let normalizer = match options.reduction {
            Reduction::Sum => self.constant(1.0, &[1]),
            Reduction::Mean => {
                let normalizer = self.tensor("normalizer", &[1], Element::F32);
                let args = [targets, weights, normalizer].map(Operand::from);
                self.dispatch(&TARGET_WEIGHTS, &TargetWeights { rows, classes }, &args);
                normalizer
            }
        };
        let row_loss = self.tensor("row_loss", &[rows as usize], Element::F32);
        let row_sums = self.tensor("row_sums", &[rows as usize, 3], Element::F32);
        let args = [logits, targets, weights, normalizer, row_loss, row_sums].map(Operand::from);
        let params = WeightedCrossEntropyForward { rows, classes, smoothing };
        self.dispatch(&WEIGHTED_CROSS_ENTROPY_FORWARD, &params, &args);
        // The rows are normalized already.
        let one = self.constant(1.0, &[1]);
        let loss = self.mean_loss(row_loss, one);
        if self.part.is_some() {
            let sum = match options.reduction {
                Reduction::Sum => None,
                Reduction::Mean => Some((self.sum_of_weights(normalizer), rows as usize)),
            };
            self.means.insert(self.root(loss), sum);
        }
        self.on_backward(&[logits], &[], &[loss], move |b| {
            if let (Some(dloss), Some((dlogits, accumulate))) = (b.gradient(loss), b.target(logits))
            {
                let params = WeightedCrossEntropyBackward { rows, classes, smoothing, accumulate };
                let args = [logits, targets, weights, row_sums, normalizer, dloss, dlogits];
                b.dispatch(&WEIGHTED_CROSS_ENTROPY_BACKWARD, &params, &args.map(Operand::from));
            }
            Ok(())
        });
        Ok(loss)
    }
}

/// Cases of these kernels.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, classes, replicas) in [
        (1u32, 1u32, 1usize),
        (3, 7, 2),
        (400, 90, 1),
        (65, 1025, 2),
        (133, 2, 2),
        (67, 32, 3),
        (2, 20_000, 1),
    ] {
        let (n, all) = (rows as usize * replicas, (rows * classes) as usize * replicas);
        let logits = noise(all, 9.0, 1);
        // One class too many, which counts as the last.
        let targets = codes(n, classes + 1, rows);
        let positive = |n: usize, key: u32| match noise(n, 1.0, key) {
            Data::F32(x) => Data::F32(x.into_iter().map(|x| 1.5 + x).collect()),
            words => words,
        };
        let weights = positive(classes as usize * replicas, 2);
        let size = format!("{rows} x {classes}");
        cases.push(Case::new(
            &TARGET_WEIGHTS,
            &size,
            &TargetWeights { rows, classes },
            replicas,
            vec![targets.clone(), weights.clone(), noise(replicas, 1.0, 3)],
        ));
        let normalizer = positive(replicas, 4);
        for smoothing in [0.0, 0.1, 1.0] {
            let forward = Case::new(
                &WEIGHTED_CROSS_ENTROPY_FORWARD,
                format!("{size} smoothing {smoothing}"),
                &WeightedCrossEntropyForward { rows, classes, smoothing },
                replicas,
                vec![
                    logits.clone(),
                    targets.clone(),
                    weights.clone(),
                    normalizer.clone(),
                    noise(n, 1.0, 5),
                    noise(3 * n, 1.0, 6),
                ],
            );
            let sums = Data::F32(forward.expected().0[5].iter().map(|x| *x as f32).collect());
            cases.push(forward);
            let accumulate = u32::from(smoothing == 0.1);
            cases.push(Case::new(
                &WEIGHTED_CROSS_ENTROPY_BACKWARD,
                format!("{size} smoothing {smoothing}"),
                &WeightedCrossEntropyBackward { rows, classes, smoothing, accumulate },
                replicas,
                vec![
                    logits.clone(),
                    targets.clone(),
                    weights.clone(),
                    sums,
                    normalizer.clone(),
                    noise(replicas, 50.0, 7),
                    noise(all, 1.0, 8),
                ],
            ));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;
    use crate::ops::testing::{constant_words, gradient_check};

    #[test]
    fn gradients_match_finite_differences() {
        for reduction in [Reduction::Mean, Reduction::Sum] {
            gradient_check(&[&[64, 5]], |g, x| {
                let Data::U32(targets) = codes(64, 5, 1) else { unreachable!() };
                let targets = constant_words(g, targets);
                let logits = g.activation(x[0], Activation::Tanh);
                let weights = g.constant(0.5, &[5]);
                let options = CrossEntropy::new()
                    .class_weights(weights)
                    .label_smoothing(0.2)
                    .reduction(reduction);
                g.cross_entropy_with(logits, targets, &options)
            });
        }
    }
}
