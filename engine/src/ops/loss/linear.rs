//! Cross-entropy of a linear layer's logits, by parts of the classes: no tensor of all logits is ever there.

use tern_shaders::Element;
use tern_shaders::kernels::loss::{
    COUNT_TARGETS, Rows, SOFTMAX_CROSS_ENTROPY_BACKWARD, SOFTMAX_CROSS_ENTROPY_FORWARD,
    SOFTMAX_CROSS_ENTROPY_JOIN, SoftmaxCrossEntropyBackward, SoftmaxCrossEntropyForward,
    SoftmaxCrossEntropyJoin,
};
use tern_shaders::kernels::matmul::Order;

use crate::ops::gemm::{Gemm, Matrix};
use crate::ops::reduce::sum_columns;
use crate::{Backward, Error, Graph, Operand, Param, Result, Tensor};

/// Logits of a linear layer, some classes at a time.
#[derive(Clone)]
struct Parts {
    x: Tensor,
    weight: Param,
    bias: Option<Param>,
    /// Rows, classes and floats of an input.
    size: [usize; 3],
    /// Classes at a time.
    at_once: usize,
}

/// Classes from one on.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    classes: usize,
}

impl Parts {
    fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let ([_, all, _], at_once) = (self.size, self.at_once);
        let firsts = (0..all).step_by(at_once);
        firsts.map(move |first| Part { first, classes: at_once.min(all - first) })
    }

    fn tensor(&self, graph: &mut Graph, label: &str, part: Part) -> Tensor {
        graph.tensor(label, &[self.size[0], part.classes], Element::F32)
    }

    /// The part's rows of the weight, or of its gradient.
    fn rows(&self, matrix: Matrix, part: Part) -> Matrix {
        matrix.skip(part.first * self.size[2])
    }

    fn logits(&self, graph: &mut Graph, part: Part) -> Tensor {
        let [rows, _, width] = self.size;
        let logits = self.tensor(graph, "logits of a part", part);
        let [input, result] = [self.x, logits].map(|t| Matrix::tensor(graph, t));
        let weight = self.rows(Matrix::weight(graph, &self.weight), part);
        let bias = self.bias.as_ref().map(|bias| Matrix::weight(graph, bias).skip(part.first));
        let size = [rows, part.classes, width];
        Gemm::new(Order::Nt, size, input, weight, result).bias(bias).record(graph);
        logits
    }

    fn forward(&self, graph: &mut Graph, targets: Tensor) -> [Tensor; 2] {
        let rows = self.size[0];
        let [count, all] = [rows, self.size[1]].map(|n| n as u32);
        let mut known: Option<[Tensor; 2]> = None;
        for part in self.parts() {
            let logits = self.logits(graph, part);
            let row_loss = graph.tensor("row_loss", &[rows], Element::F32);
            let log_sum = graph.tensor("log_sum", &[rows, 2], Element::F32);
            let args = [logits, targets, row_loss, log_sum].map(Operand::from);
            let (first, classes) = (part.first as u32, part.classes as u32);
            let params = SoftmaxCrossEntropyForward { rows: count, classes, first, all };
            graph.dispatch(&SOFTMAX_CROSS_ENTROPY_FORWARD, &params, &args);
            let Some([loss, sum]) = known else {
                known = Some([row_loss, log_sum]);
                continue;
            };
            let args = [row_loss, log_sum, targets, loss, sum].map(Operand::from);
            let params = SoftmaxCrossEntropyJoin { rows: count, classes, first, all };
            graph.dispatch(&SOFTMAX_CROSS_ENTROPY_JOIN, &params, &args);
        }
        let Some(known) = known else { unreachable!("a parameter has a row") };
        known
    }

    /// Gradients of what wants them, from those of the part's logits.
    fn backward(&self, b: &mut Backward<'_>, [targets, log_sum, count, dloss]: [Tensor; 4]) {
        let mut dx = b.target(self.x);
        let dw = b.weight_target(&self.weight);
        let db = self.bias.as_ref().and_then(|bias| Some((bias, b.weight_target(bias)?)));
        if dx.is_none() && dw.is_none() && db.is_none() {
            return;
        }
        let [rows, all, width] = self.size;
        for part in self.parts() {
            let logits = self.logits(b, part);
            let dlogits = self.tensor(b, "d logits of a part", part);
            let params = SoftmaxCrossEntropyBackward {
                rows: rows as u32,
                classes: part.classes as u32,
                accumulate: 0,
                first: part.first as u32,
                all: all as u32,
            };
            let args = [logits, targets, log_sum, count, dloss, dlogits].map(Operand::from);
            b.dispatch(&SOFTMAX_CROSS_ENTROPY_BACKWARD, &params, &args);
            let [input, upstream] = [self.x, dlogits].map(|t| Matrix::tensor(b, t));
            if let Some((dx, accumulate)) = &mut dx {
                let weight = self.rows(Matrix::weight(b, &self.weight), part);
                let (size, to) = ([rows, width, part.classes], Matrix::tensor(b, *dx));
                let product = Gemm::new(Order::Nn, size, upstream, weight, to);
                product.accumulate(*accumulate).record(b);
                *accumulate = 1;
            }
            if let Some(accumulate) = dw {
                let to = self.rows(Matrix::gradient(b, &self.weight), part);
                let size = [part.classes, width, rows];
                let product = Gemm::new(Order::Tn, size, upstream, input, to);
                product.accumulate(accumulate).record(b);
            }
            if let Some((bias, accumulate)) = db {
                let at = bias.offset + part.first;
                let out = (Backward::GRADIENTS, at, b.parameter_stride());
                sum_columns(b, dlogits, [rows, part.classes], out, accumulate);
            }
        }
    }
}

impl Graph {
    /// [`Graph::cross_entropy`] of the logits x·Wᵀ + b, computed for at most `at_once` classes at a time,
    /// and once more in the backward pass: of `[rows, classes]` logits no more than
    /// `[rows, at_once]` are there at once, which counts where a vocabulary is large. Shapes: `x`
    /// `[..., in]`, `weight` `[classes, in]`, `bias` `[classes]`, `targets` `[...]` words, result `[1]`.
    /// Products are of single precision.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the sizes go together; [`Error::Value`] for no classes at once, or a data
    /// set with more classes.
    pub fn linear_cross_entropy(
        &mut self,
        x: Tensor,
        weight: &Param,
        bias: Option<&Param>,
        targets: Tensor,
        at_once: usize,
    ) -> Result<Tensor> {
        let op = "linear_cross_entropy";
        let size = match (self.shape(x), &weight.shape[..], bias.map(|b| &b.shape[..])) {
            ([lead @ .., i], &[classes, width], bias)
                if *i == width && bias.is_none_or(|bias| bias == [classes]) =>
            {
                [lead.iter().product(), classes, width]
            }
            (x, weight, bias) => {
                return Err(Error::shape(op, format!("x {x:?}, weight {weight:?}, bias {bias:?}")));
            }
        };
        self.check_floats(op, x)?;
        self.check_words(op, targets)?;
        let [rows, classes, _] = size;
        if self.len(targets) != rows {
            let (x, targets) = (self.shape(x), self.shape(targets));
            let what = format!("x {x:?} with targets {targets:?}, expected one a row");
            return Err(Error::shape(op, what));
        }
        self.limit_words(targets, classes, "classes")?;
        if at_once == 0 {
            return Err(Error::value("classes at once", 0, "one or more"));
        }
        let rows = rows as u32;
        let parts = Parts { x, weight: weight.clone(), bias: bias.cloned(), size, at_once };
        let count = self.tensor("count", &[1], Element::F32);
        self.dispatch(&COUNT_TARGETS, &Rows { rows }, &[targets.into(), count.into()]);
        let [row_loss, log_sum] = parts.forward(self, targets);
        let loss = self.mean_loss(row_loss, count);
        let weights: Vec<&Param> = [weight].into_iter().chain(bias).collect();
        self.on_backward(&[x], &weights, &[loss], move |b| {
            if let Some(dloss) = b.gradient(loss) {
                parts.backward(b, [targets, log_sum, count, dloss]);
            }
            Ok(())
        });
        Ok(loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{constant_words, gradient_check_with, software};
    use crate::ops::{codes, noise};
    use crate::{Activation, Arena, Data, Device, Flat, Init, Parameters};

    fn weights(classes: usize, width: usize) -> (Parameters, Param, Param) {
        let mut parameters = Parameters::new();
        let bias = parameters.add("bias", &[classes], Init::Uniform(0.5)).unwrap();
        let weight = parameters.add("weight", &[classes, width], Init::Uniform(0.5)).unwrap();
        (parameters, weight, bias)
    }

    #[test]
    fn gradients_match_finite_differences() {
        let (parameters, weight, bias) = weights(7, 3);
        for (at_once, with_bias) in [(7, true), (3, true), (2, false), (1, true)] {
            gradient_check_with(&parameters, &[&[64, 3]], |g, x| {
                let Data::U32(targets) = codes(64, 7, 1) else { unreachable!() };
                let targets = constant_words(g, targets);
                let x = g.activation(x[0], Activation::Tanh);
                let bias = with_bias.then_some(&bias);
                let loss = g.linear_cross_entropy(x, &weight, bias, targets, at_once)?;
                // What it multiplies by has another gradient, and so has its input.
                let logits = g.linear(x, &weight, bias, Activation::Tanh)?;
                let other = g.sum(logits);
                g.add(loss, other)
            });
        }
    }

    /// Loss and gradients, by parts of the classes or from a tensor of all logits.
    fn run(device: &Device, at_once: Option<usize>) -> Vec<f64> {
        let [rows, classes, width] = [65, 1000, 12];
        let (parameters, weight, bias) = weights(classes, width);
        let arena = Arena::new(device, &parameters, &[3, 4]).unwrap();
        let mut g = Graph::new(&arena);
        let x = g.input("x", &[rows, width], Element::F32);
        let targets = g.input("targets", &[rows], Element::U32);
        let loss = match at_once {
            Some(n) => g.linear_cross_entropy(x, &weight, Some(&bias), targets, n).unwrap(),
            None => {
                let logits = g.linear(x, &weight, Some(&bias), Activation::Identity).unwrap();
                g.cross_entropy(logits, targets).unwrap()
            }
        };
        g.keep(loss);
        let dloss = g.input("dloss", &[1], Element::F32);
        let (mut plan, gradients) =
            g.gradients(&[(loss, dloss)], &crate::Trainable::All, &[x]).unwrap();
        plan.write(x, &noise(2 * rows * width, 4.0, 1)).unwrap();
        plan.write(targets, &codes(2 * rows, classes as u32, 2)).unwrap();
        plan.write(dloss, &Data::F32(vec![65.0; 2])).unwrap();
        plan.run(1).unwrap();
        let mut found = plan.read_f64(loss).unwrap();
        found.extend(plan.read_f64(gradients[0].unwrap()).unwrap());
        found.extend([0, 1].map(|r| arena.read_f64(Flat::Gradients, r).unwrap()).concat());
        found
    }

    #[test]
    fn parts_of_the_classes_give_what_all_of_them_do() {
        let expected = run(&Device::reference_f64(), None);
        let devices = software().iter().map(|(name, device)| (*name, device.clone()));
        let devices =
            [("f64", Device::reference_f64()), ("cpu", Device::cpu())].into_iter().chain(devices);
        for (name, device) in devices {
            for at_once in [1000, 384, 999, 100] {
                let found = run(&device, Some(at_once));
                assert_eq!(found.len(), expected.len());
                let near = if name == "f64" { 1e-12 } else { 2e-5 };
                for (a, b) in found.iter().zip(&expected) {
                    assert!((a - b).abs() < near * b.abs().max(1.0), "{name}, {at_once}: {a} {b}");
                }
            }
        }
    }

    /// What the largest of the layers takes is a part's logits and their gradient.
    #[test]
    fn no_tensor_of_all_logits_is_made() {
        let (parameters, weight, bias) = weights(4096, 8);
        let words = |at_once: usize| {
            let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
            let mut g = Graph::new(&arena);
            let x = g.input("x", &[64, 8], Element::F32);
            let targets = g.input("targets", &[64], Element::U32);
            let loss = g.linear_cross_entropy(x, &weight, Some(&bias), targets, at_once).unwrap();
            let dloss = g.constant(1.0, &[1]);
            let (plan, _) = g.gradients(&[(loss, dloss)], &crate::Trainable::All, &[]).unwrap();
            plan.memory().activations
        };
        let (all, parts) = (words(4096), words(256));
        assert!(all >= 2 * 64 * 4096 * 4 && parts < all / 8, "{all} and {parts} bytes");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let (parameters, weight, bias) = weights(5, 3);
        let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
        let mut g = Graph::new(&arena);
        let x = g.input("x", &[2, 3], Element::F32);
        let wide = g.input("x", &[2, 4], Element::F32);
        let targets = g.input("targets", &[2], Element::U32);
        let more = g.input("targets", &[3], Element::U32);
        for (refused, expected) in [
            (g.linear_cross_entropy(wide, &weight, None, targets, 5), "[2, 4]"),
            (g.linear_cross_entropy(x, &weight, Some(&weight), targets, 5), "Some([5, 3])"),
            (g.linear_cross_entropy(x, &weight, Some(&bias), more, 5), "[3]"),
            (g.linear_cross_entropy(x, &weight, None, x, 5), "linear_cross_entropy"),
            (g.linear_cross_entropy(x, &weight, None, targets, 0), "classes at once"),
        ] {
            let message = refused.map(|_| "no error").unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
