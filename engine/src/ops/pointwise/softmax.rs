//! Softmax and log-softmax over the last axis.

use tern_shaders::Element;
use tern_shaders::kernels::pointwise::{
    SOFTMAX_BACKWARD, SOFTMAX_FORWARD, SoftmaxBackward, SoftmaxForward,
};

use crate::ops::{Case, noise};
use crate::{Graph, Result, Tensor};

impl Graph {
    /// Softmax over the last axis.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if there is none.
    pub fn softmax(&mut self, x: Tensor) -> Result<Tensor> {
        self.softmax_or_log("softmax", x, 0)
    }

    /// Logarithm of the softmax over the last axis.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if there is none.
    pub fn log_softmax(&mut self, x: Tensor) -> Result<Tensor> {
        self.softmax_or_log("log_softmax", x, 1)
    }

    fn softmax_or_log(&mut self, op: &'static str, x: Tensor, logarithm: u32) -> Result<Tensor> {
        let (rows, classes) = self.check_rows(op, x)?;
        let shape = self.shape(x).to_vec();
        let y = self.tensor(op, &shape, Element::F32);
        let params = SoftmaxForward { rows, classes, logarithm };
        self.dispatch(&SOFTMAX_FORWARD, &params, &[x.into(), y.into()]);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                let params = SoftmaxBackward { rows, classes, logarithm, accumulate };
                b.dispatch(&SOFTMAX_BACKWARD, &params, &[y.into(), dy.into(), dx.into()]);
            }
            Ok(())
        });
        Ok(y)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, classes, replicas) in [
        (1u32, 1u32, 1usize),
        (3, 7, 2),
        (80, 90, 1),
        (5, 1300, 2),
        (1, 30_000, 1),
        (133, 2, 2),
        (67, 31, 3),
    ] {
        let n = (rows * classes) as usize * replicas;
        for logarithm in [0, 1] {
            let size = format!("{rows} x {classes} logarithm {logarithm}");
            let (x, y) = (noise(n, 8.0, 1), noise(n, 1.0, 2));
            let params = SoftmaxForward { rows, classes, logarithm };
            let buffers = vec![x, y.clone()];
            cases.push(Case::new(&SOFTMAX_FORWARD, &size, &params, replicas, buffers));
            for accumulate in [0, 1] {
                let params = SoftmaxBackward { rows, classes, logarithm, accumulate };
                let buffers = vec![y.clone(), noise(n, 2.0, 3), noise(n, 1.0, 4)];
                let label = format!("{size} accumulate {accumulate}");
                cases.push(Case::new(&SOFTMAX_BACKWARD, label, &params, replicas, buffers));
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::gradient_check;

    #[test]
    fn gradients_match_finite_differences() {
        gradient_check(&[&[2, 3, 4]], |g, x| {
            let mid = g.tanh(x[0]);
            let (plain, log) = (g.softmax(mid)?, g.log_softmax(mid)?);
            g.multiply(plain, log)
        });
    }
}
