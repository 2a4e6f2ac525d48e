//! Losses with their gradients: scalars of shape `[1]`, means over the rows that count.
//!
//! ```rust
//! # use tern_engine::{Arena, Device, Init, Parameters};
//! use tern_engine::{Data, Element, Graph, IGNORE};
//!
//! # fn main() -> tern_engine::Result<()> {
//! # let mut parameters = Parameters::new();
//! # parameters.add("weight", &[1], Init::Zeros)?;
//! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let logits = graph.constant(0.0, &[2, 4]);
//! let targets = graph.input("targets", &[2], Element::U32);
//! let loss = graph.cross_entropy(logits, targets)?;
//! graph.keep(loss);
//! let mut plan = graph.forward()?;
//! // The second row has no target and does not count.
//! plan.write(targets, &Data::U32(vec![3, IGNORE]))?;
//! plan.run(1)?;
//! // Four classes, all equally likely.
//! let loss = plan.read(loss)?.floats()?;
//! assert!((loss[0] - 4f32.ln()).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```

mod linear;
mod weighted;

pub use weighted::{CrossEntropy, Reduction};

use tern_shaders::Element;
use tern_shaders::kernels::loss::{
    BatchRows, COUNT_ROWS, COUNT_TARGETS, ELEMENTWISE_BACKWARD, ELEMENTWISE_FORWARD, ElementLoss,
    ElementwiseBackward, ElementwiseForward, MEAN, Rows, SOFTMAX_CROSS_ENTROPY_BACKWARD,
    SOFTMAX_CROSS_ENTROPY_FORWARD, SOFTMAX_CROSS_ENTROPY_JOIN, SoftmaxCrossEntropyBackward,
    SoftmaxCrossEntropyForward, SoftmaxCrossEntropyJoin,
};

use super::{Case, codes, noise};
use crate::{Data, Error, Graph, Operand, Result, Tensor};

impl Graph {
    /// Mean cross-entropy of logits `[..., classes]` with one class a row, `[...]` words.
    /// Rows whose target is [`IGNORE`](crate::IGNORE) don't count; with no row left the loss is 0.
    /// Targets past the classes are refused where they come from outside: a data set's here, an
    /// input's by [`Plan::write`](crate::Plan::write). PyTorch's labels and its ignore index become
    /// targets by [`targets`](crate::targets).
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is one target a row; [`Error::Value`] for a data set with more
    /// classes.
    pub fn cross_entropy(&mut self, logits: Tensor, targets: Tensor) -> Result<Tensor> {
        let (rows, classes) = self.check_targets("cross_entropy", logits, targets)?;
        let count = self.tensor("count", &[1], Element::F32);
        self.dispatch(&COUNT_TARGETS, &Rows { rows }, &[targets.into(), count.into()]);
        let row_loss = self.tensor("row_loss", &[rows as usize], Element::F32);
        let log_sum = self.tensor("log_sum", &[rows as usize, 2], Element::F32);
        let args = [logits.into(), targets.into(), row_loss.into(), log_sum.into()];
        let params = SoftmaxCrossEntropyForward { rows, classes, first: 0, all: classes };
        self.dispatch(&SOFTMAX_CROSS_ENTROPY_FORWARD, &params, &args);
        let loss = self.mean_loss(row_loss, count);
        self.on_backward(&[logits], &[], &[loss], move |b| {
            if let (Some(dloss), Some((dlogits, accumulate))) = (b.gradient(loss), b.target(logits))
            {
                let params = SoftmaxCrossEntropyBackward {
                    rows,
                    classes,
                    accumulate,
                    first: 0,
                    all: classes,
                };
                let args = [logits, targets, log_sum, count, dloss, dlogits].map(Operand::from);
                b.dispatch(&SOFTMAX_CROSS_ENTROPY_BACKWARD, &params, &args);
            }
            Ok(())
        });
        Ok(loss)
    }

    /// Mean binary cross-entropy of logits with probabilities in [0, 1] of the same shape.
    /// The first axis are the rows; `count` says how many of them count, all if it is `None`
    /// (see [`Graph::batch_rows`]).
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ.
    pub fn binary_cross_entropy(
        &mut self,
        logits: Tensor,
        targets: Tensor,
        count: Option<Tensor>,
    ) -> Result<Tensor> {
        let kind = ElementLoss::BinaryCrossEntropy;
        self.element_loss("binary_cross_entropy", kind, logits, targets, count)
    }

    /// Mean squared error between tensors of one shape; `count` as in
    /// [`Graph::binary_cross_entropy`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ.
    pub fn mse(&mut self, x: Tensor, targets: Tensor, count: Option<Tensor>) -> Result<Tensor> {
        self.element_loss("mse", ElementLoss::SquaredError, x, targets, count)
    }

    /// Number of rows of the current batch that hold samples, at most `rows`: what a loss
    /// takes as its `count` where a short last batch is padded.
    pub fn batch_rows(&mut self, rows: usize) -> Tensor {
        let count = self.tensor("count", &[1], Element::F32);
        let first = self.first_row(rows) as u32;
        let params = BatchRows { first, rows: rows as u32 };
        self.dispatch(&COUNT_ROWS, &params, &[Operand::State, count.into()]);
        count
    }

    fn element_loss(
        &mut self,
        op: &'static str,
        kind: ElementLoss,
        x: Tensor,
        targets: Tensor,
        count: Option<Tensor>,
    ) -> Result<Tensor> {
        self.check_floats(op, x)?;
        self.check_floats(op, targets)?;
        if self.shape(x) != self.shape(targets) {
            let what = format!("{:?} with targets {:?}", self.shape(x), self.shape(targets));
            return Err(Error::shape(op, what));
        }
        if let Some(count) = count {
            self.check_floats(op, count)?;
            if self.len(count) != 1 {
                return Err(Error::shape(op, format!("count {:?}", self.shape(count))));
            }
        }
        let rows = self.shape(x).first().copied().unwrap_or(1) as u32;
        let (width, kind) = (self.len(x) as u32 / rows, kind as u32);
        let count = count.unwrap_or_else(|| self.constant(rows as f32, &[1]));
        let row_loss = self.tensor("row_loss", &[rows as usize], Element::F32);
        let args = [x, targets, count, row_loss].map(Operand::from);
        self.dispatch(&ELEMENTWISE_FORWARD, &ElementwiseForward { rows, width, kind }, &args);
        let loss = self.mean_loss(row_loss, count);
        self.on_backward(&[x], &[], &[loss], move |b| {
            if let (Some(dloss), Some((dx, accumulate))) = (b.gradient(loss), b.target(x)) {
                let params = ElementwiseBackward { rows, width, kind, accumulate };
                let args = [x, targets, count, dloss, dx].map(Operand::from);
                b.dispatch(&ELEMENTWISE_BACKWARD, &params, &args);
            }
            Ok(())
        });
        Ok(loss)
    }

    fn mean_loss(&mut self, row_loss: Tensor, count: Tensor) -> Tensor {
        let loss = self.tensor("loss", &[1], Element::F32);
        let rows = self.len(row_loss);
        let params = Rows { rows: rows as u32 };
        self.dispatch(&MEAN, &params, &[row_loss.into(), count.into(), loss.into()]);
        self.means.insert(self.root(loss), Some((count, rows)));
        loss
    }
}

fn cross_entropy_cases(rows: u32, classes: u32, replicas: usize, cases: &mut Vec<Case>) {
    let (n, all) = (rows as usize * replicas, (rows * classes) as usize * replicas);
    let size = format!("{rows} x {classes}");
    let mut logits = noise(all, 9.0, 1);
    if let Data::F32(logits) = &mut logits {
        // Rows with an offset, which neither loss nor gradient has anything of.
        let offsets = [0.0, 1e5, -3e6];
        let rows = logits.chunks_mut(classes as usize).zip(offsets.into_iter().cycle());
        rows.for_each(|(row, offset)| row.iter_mut().for_each(|x| *x += offset));
    }
    // One class too many, which counts as the last.
    let targets = codes(n, classes + 1, rows);
    let blank = noise(n, 1.0, 2);
    cases.push(Case::new(
        &SOFTMAX_CROSS_ENTROPY_FORWARD,
        &size,
        &SoftmaxCrossEntropyForward { rows, classes, first: 0, all: classes },
        replicas,
        vec![logits.clone(), targets.clone(), blank, noise(2 * n, 1.0, 2)],
    ));
    let mut log_sum = Vec::new();
    if let Data::F32(logits) = &logits {
        for row in logits.chunks(classes as usize) {
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|x| f64::from(x - top).exp()).sum();
            log_sum.extend([top, sum.ln() as f32]);
        }
    }
    let (log_sum, dlogits) = (Data::F32(log_sum), noise(all, 1.0, 3));
    let (count, dloss) = (noise(replicas, 30.0, 4), noise(replicas, 50.0, 5));
    for accumulate in [0, 1] {
        cases.push(Case::new(
            &SOFTMAX_CROSS_ENTROPY_BACKWARD,
            format!("{size} accumulate {accumulate}"),
            &SoftmaxCrossEntropyBackward { rows, classes, accumulate, first: 0, all: classes },
            replicas,
            [&logits, &targets, &log_sum, &count, &dloss, &dlogits].map(Data::clone).to_vec(),
        ));
    }
}

/// Some classes of all, and what is known of those before.
fn part_cases(rows: u32, [first, classes, all]: [u32; 3], replicas: usize, cases: &mut Vec<Case>) {
    let (n, each) = (rows as usize * replicas, (rows * classes) as usize * replicas);
    let label = format!("{rows} x {classes} from {first} on of {all}");
    // One class too many, which counts as the last.
    let (logits, targets) = (noise(each, 9.0, 1), codes(n, all + 1, rows));
    let (loss, sums) = (noise(n, 3.0, 2), noise(2 * n, 5.0, 3));
    let forward = SoftmaxCrossEntropyForward { rows, classes, first, all };
    let buffers = vec![logits.clone(), targets.clone(), loss.clone(), sums.clone()];
    cases.push(Case::new(&SOFTMAX_CROSS_ENTROPY_FORWARD, &label, &forward, replicas, buffers));
    let join = SoftmaxCrossEntropyJoin { rows, classes, first, all };
    let known = [noise(n, 3.0, 4), noise(2 * n, 5.0, 5)];
    let buffers = [loss, sums.clone(), targets.clone()].into_iter().chain(known).collect();
    cases.push(Case::new(&SOFTMAX_CROSS_ENTROPY_JOIN, &label, &join, replicas, buffers));
    let backward = SoftmaxCrossEntropyBackward { rows, classes, accumulate: 0, first, all };
    let (count, dloss) = (noise(replicas, 30.0, 6), noise(replicas, 50.0, 7));
    // Above the logits, as the sum of all is.
    let sums = match sums {
        Data::F32(sums) => Data::F32(sums.into_iter().map(|x| x + 14.0).collect()),
        words => words,
    };
    let buffers = vec![logits, targets, sums, count, dloss, noise(each, 1.0, 8)];
    cases.push(Case::new(&SOFTMAX_CROSS_ENTROPY_BACKWARD, label, &backward, replicas, buffers));
}

fn elementwise_cases(rows: u32, width: u32, replicas: usize, cases: &mut Vec<Case>) {
    let (n, all) = (rows as usize * replicas, (rows * width) as usize * replicas);
    let valid = |r: usize| (rows as usize - r.min(rows as usize)) as f32;
    let count = Data::F32((0..replicas).map(valid).collect());
    let probability = |x: &f32| 0.5 * (x + 1.0);
    let targets = match noise(all, 1.0, 1) {
        Data::F32(x) => Data::F32(x.iter().map(probability).collect()),
        words => words,
    };
    let (x, row_loss) = (noise(all, 20.0, 2), noise(n, 1.0, 3));
    let (dloss, dx) = (noise(replicas, 50.0, 4), noise(all, 1.0, 5));
    for kind in [ElementLoss::SquaredError, ElementLoss::BinaryCrossEntropy] {
        let label = format!("{kind:?} {rows} x {width}");
        let kind = kind as u32;
        cases.push(Case::new(
            &ELEMENTWISE_FORWARD,
            &label,
            &ElementwiseForward { rows, width, kind },
            replicas,
            [&x, &targets, &count, &row_loss].map(Data::clone).to_vec(),
        ));
        for accumulate in [0, 1] {
            cases.push(Case::new(
                &ELEMENTWISE_BACKWARD,
                format!("{label} accumulate {accumulate}"),
                &ElementwiseBackward { rows, width, kind, accumulate },
                replicas,
                [&x, &targets, &count, &dloss, &dx].map(Data::clone).to_vec(),
            ));
        }
    }
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, classes, replicas) in [
        (1, 1, 1),
        (3, 7, 2),
        (800, 90, 1),
        (65, 1025, 2),
        (20, 10_000, 1),
        (2, 60_000, 1),
        (133, 2, 2),
        (67, 31, 3),
    ] {
        cross_entropy_cases(rows, classes, replicas, &mut cases);
    }
    for (rows, part, replicas) in [
        (7, [0, 5, 12], 2),
        (133, [6, 3, 12], 1),
        (67, [8, 4, 12], 2),
        (20, [1000, 1500, 4000], 2),
        (5, [3000, 1000, 4000], 1),
    ] {
        part_cases(rows, part, replicas, &mut cases);
    }
    for (rows, width, replicas) in
        [(1, 1, 1), (10, 1, 4), (33, 5, 2), (3, 1500, 1), (133, 3, 2), (70, 32, 3)]
    {
        elementwise_cases(rows, width, replicas, &mut cases);
    }
    for (rows, replicas) in [(1u32, 1usize), (100, 3), (60_000, 1), (70_000, 1)] {
        let (params, n) = (Rows { rows }, rows as usize * replicas);
        let (size, blank) = (format!("{rows}"), noise(replicas, 1.0, 1));
        let buffers = vec![codes(n, 9, 2), blank.clone()];
        cases.push(Case::new(&COUNT_TARGETS, &size, &params, replicas, buffers));
        // One a row, so that a row left out shows.
        let buffers = vec![Data::F32(vec![1.0; n]), noise(replicas, 3.0, 4), blank];
        cases.push(Case::new(&MEAN, &size, &params, replicas, buffers));
    }
    let state = Data::U32((0..128).map(|word| 9 * (word % 64)).collect());
    let buffers = vec![state, noise(2, 1.0, 1)];
    for (what, first, rows) in [("all", 0, 50), ("some", 0, 100), ("rest", 40, 50), ("none", 90, 9)]
    {
        let params = BatchRows { first, rows };
        cases.push(Case::new(&COUNT_ROWS, what, &params, 2, buffers.clone()));
    }
    cases.extend(weighted::cases());
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{constant_words, gradient_check, run_cases};
    use crate::{Activation, Arena, Device, Parameters};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    #[test]
    fn gradients_match_finite_differences() {
        gradient_check(&[&[64, 5]], |g, x| {
            let Data::U32(targets) = codes(64, 5, 1) else { unreachable!() };
            let targets = constant_words(g, targets);
            let logits = g.activation(x[0], Activation::Tanh);
            g.cross_entropy(logits, targets)
        });
        gradient_check(&[&[4, 3], &[4, 3]], |g, x| {
            let logits = g.activation(x[0], Activation::Tanh);
            let targets = g.constant(0.25, &[4, 3]);
            let count = g.constant(3.0, &[1]);
            let bce = g.binary_cross_entropy(logits, targets, Some(count))?;
            let mse = g.mse(logits, targets, None)?;
            g.multiply(bce, mse)
        });
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let mut parameters = Parameters::new();
        parameters.add("w", &[1], crate::Init::Zeros).unwrap();
        let mut g = Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap());
        let x = g.input("x", &[4, 3], Element::F32);
        let targets = g.input("targets", &[3], Element::U32);
        let message = g.cross_entropy(x, targets).unwrap_err().to_string();
        assert_eq!(message, "cross_entropy: logits [4, 3] with targets [3], expected one a row");
        let wide = g.input("wide", &[4, 4], Element::F32);
        let message = g.mse(x, wide, None).unwrap_err().to_string();
        assert_eq!(message, "mse: [4, 3] with targets [4, 4]");
        assert!(g.binary_cross_entropy(x, x, Some(wide)).is_err(), "a count is one number");
        assert!(g.cross_entropy(x, x).is_err(), "classes are words");
    }
}
