//! Sums, differences and products.

use tern_shaders::kernels::pointwise::{
    BINARY_BACKWARD_LEFT, BINARY_BACKWARD_RIGHT, BINARY_FORWARD, Binary, BinaryBackwardLeft,
    BinaryBackwardRight, BinaryForward,
};
use tern_shaders::{Element, MAX_SUMMED_ROWS};

use super::strided::broadcast;
use crate::ops::{Case, mode_of_part, noise, part, parts};
use crate::{Data, Error, Graph, Result, Tensor};

impl Graph {
    /// a + b, element by element. Where the shapes differ both are repeated as
    /// [`Graph::broadcast_to`] says; if b's is the end of a's (a row vector is added to each row),
    /// without a copy.
    ///
    /// # Errors
    /// [`Error::Shape`] for shapes that don't go together.
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        self.binary("add", Binary::Add, a, b)
    }

    /// a − b, shapes as in [`Graph::add`].
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn subtract(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        self.binary("subtract", Binary::Subtract, a, b)
    }

    /// a · b element by element, shapes as in [`Graph::add`].
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn multiply(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        self.binary("multiply", Binary::Multiply, a, b)
    }

    fn binary(&mut self, op: &'static str, kind: Binary, a: Tensor, b: Tensor) -> Result<Tensor> {
        self.check_floats(op, a)?;
        self.check_floats(op, b)?;
        let Some(shape) = broadcast(self.shape(a), self.shape(b)) else {
            return Err(Error::shape(op, format!("{:?} and {:?}", self.shape(a), self.shape(b))));
        };
        let a = self.broadcast_to(a, &shape)?;
        let b = if shape.ends_with(self.shape(b)) { b } else { self.broadcast_to(b, &shape)? };
        let (n, period, kind) = (self.len(a) as u32, self.len(b) as u32, kind as u32);
        let y = self.tensor(op, &shape, Element::F32);
        let params = BinaryForward { n, period, kind };
        self.dispatch(&BINARY_FORWARD, &params, &[a.into(), b.into(), y.into()]);
        self.on_backward(&[a, b], &[], &[y], move |g| {
            let Some(dy) = g.gradient(y) else { return Ok(()) };
            if let Some((da, accumulate)) = g.target(a) {
                let params = BinaryBackwardLeft { n, period, kind, accumulate };
                g.dispatch(&BINARY_BACKWARD_LEFT, &params, &[b.into(), dy.into(), da.into()]);
            }
            if let Some((db, accumulate)) = g.target(b) {
                let rows = n / period;
                for (first, end) in parts(rows, MAX_SUMMED_ROWS) {
                    let accumulate = mode_of_part(first, accumulate);
                    let params = BinaryBackwardRight { rows, period, kind, accumulate, first, end };
                    g.dispatch(&BINARY_BACKWARD_RIGHT, &params, &[a.into(), dy.into(), db.into()]);
                }
            }
            Ok(())
        });
        Ok(y)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let sizes = [
        (1u32, 1u32, 1usize),
        (3, 7, 3),
        (1, 1000, 2),
        (100, 257, 1),
        (60_000, 1, 1),
        (1500, 3, 2),
    ];
    for (rows, period, replicas) in sizes {
        let n = rows * period;
        let (all, right) = (n as usize * replicas, period as usize * replicas);
        let (a, b) = (noise(all, 2.0, 1), noise(right, 2.0, 2));
        let (y, dy, db) = (noise(all, 1.0, 3), noise(all, 1.0, 4), noise(right, 1.0, 5));
        for kind in [Binary::Add, Binary::Subtract, Binary::Multiply] {
            let size = format!("{kind:?} {rows} x {period}");
            let kind = kind as u32;
            let copies = |buffers: [&Data; 3]| buffers.map(Data::clone).to_vec();
            let params = BinaryForward { n, period, kind };
            let buffers = copies([&a, &b, &y]);
            cases.push(Case::new(&BINARY_FORWARD, &size, &params, replicas, buffers));
            for accumulate in [0, 1] {
                let label = format!("{size} accumulate {accumulate}");
                let params = BinaryBackwardLeft { n, period, kind, accumulate };
                let buffers = copies([&b, &dy, &y]);
                cases.push(Case::new(&BINARY_BACKWARD_LEFT, &label, &params, replicas, buffers));
                let (first, end) = part(rows, accumulate);
                let params = BinaryBackwardRight { rows, period, kind, accumulate, first, end };
                let buffers = copies([&a, &dy, &db]);
                let case = Case::new(&BINARY_BACKWARD_RIGHT, &label, &params, replicas, buffers);
                // The terms of a long sum cancel: its error grows against the result.
                cases.push(case.tolerance(if rows > 1000 { 1e-4 } else { 1e-5 }));
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::gradient_check;
    use crate::{Arena, Device, Init, Parameters};

    #[test]
    fn gradients_match_finite_differences() {
        gradient_check(&[&[3, 4], &[3, 4], &[4]], |g, x| {
            let a = g.tanh(x[0]);
            let product = g.multiply(a, x[1])?;
            let product = g.multiply(product, x[2])?;
            let sum = g.add(product, x[2])?;
            let difference = g.subtract(sum, a)?;
            let difference = g.subtract(difference, x[2])?;
            // Both operands the same tensor.
            g.multiply(difference, difference)
        });
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let mut parameters = Parameters::new();
        parameters.add("w", &[1], Init::Zeros).unwrap();
        let mut g = Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap());
        let (a, b) = (g.input("a", &[3, 4], Element::F32), g.input("b", &[3], Element::F32));
        assert_eq!(g.add(a, b).unwrap_err().to_string(), "add: [3, 4] and [3]");
    }
}
