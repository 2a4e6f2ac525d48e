//! Pointwise ops.
//!
//! ```rust
//! # use tern_engine::{Arena, Device, Init, Parameters};
//! use tern_engine::{Data, Element, Graph};
//!
//! # fn main() -> tern_engine::Result<()> {
//! # let mut parameters = Parameters::new();
//! # parameters.add("weight", &[1], Init::Zeros)?;
//! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let x = graph.input("x", &[2, 2], Element::F32);
//! let row = graph.input("row", &[2], Element::F32);
//! let positive = graph.relu(x);
//! // The row is added to each of x.
//! let y = graph.add(positive, row)?;
//! graph.keep(y);
//! let mut plan = graph.forward()?;
//! plan.write(x, &Data::F32(vec![-1.0, 2.0, 3.0, -4.0]))?;
//! plan.write(row, &Data::F32(vec![10.0, 20.0]))?;
//! plan.run(1)?;
//! assert_eq!(plan.read(y)?, Data::F32(vec![10.0, 22.0, 13.0, 20.0]));
//! # Ok(())
//! # }
//! ```

mod binary;
mod cast;
mod copy;
mod softmax;
mod strided;
mod swiglu;

pub(super) use strided::{Axis, Move, broadcast};

use tern_shaders::kernels::pointwise::{
    ACTIVATION_BACKWARD, ACTIVATION_FORWARD, ActivationBackward, ActivationForward,
};
use tern_shaders::{Activation, Element};

use super::{Case, noise};
use crate::{Graph, Tensor};

impl Graph {
    /// y = f(x), element by element.
    pub fn activation(&mut self, x: Tensor, kind: Activation) -> Tensor {
        let (n, kind) = (self.len(x) as u32, kind as u32);
        let shape = self.shape(x).to_vec();
        let y = self.tensor("activation", &shape, Element::F32);
        self.dispatch(&ACTIVATION_FORWARD, &ActivationForward { n, kind }, &[x.into(), y.into()]);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                let params = ActivationBackward { n, kind, accumulate };
                let args = [x.into(), y.into(), dy.into(), dx.into()];
                b.dispatch(&ACTIVATION_BACKWARD, &params, &args);
            }
            Ok(())
        });
        y
    }

    /// max(x, 0)
    pub fn relu(&mut self, x: Tensor) -> Tensor {
        self.activation(x, Activation::Relu)
    }

    /// tanh x
    pub fn tanh(&mut self, x: Tensor) -> Tensor {
        self.activation(x, Activation::Tanh)
    }

    /// 1 / (1 + e^−x)
    pub fn sigmoid(&mut self, x: Tensor) -> Tensor {
        self.activation(x, Activation::Sigmoid)
    }
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let families = [
        binary::cases(),
        cast::cases(),
        copy::cases(),
        softmax::cases(),
        strided::cases(),
        swiglu::cases(),
    ];
    let mut cases = families.concat();
    for kind in Activation::ALL {
        for (n, replicas) in [(1usize, 1), (7, 3), (1000, 2)] {
            let label = format!("{kind:?} {n}");
            let all = n * replicas;
            let (n, kind) = (n as u32, kind as u32);
            let (x, y) = (noise(all, 20.0, 1), noise(all, 0.9, 2));
            let (dy, dx) = (noise(all, 3.0, 3), noise(all, 1.0, 4));
            cases.push(Case::new(
                &ACTIVATION_FORWARD,
                &label,
                &ActivationForward { n, kind },
                replicas,
                vec![x.clone(), dx.clone()],
            ));
            for accumulate in [0, 1] {
                cases.push(Case::new(
                    &ACTIVATION_BACKWARD,
                    format!("{label} accumulate {accumulate}"),
                    &ActivationBackward { n, kind, accumulate },
                    replicas,
                    vec![x.clone(), y.clone(), dy.clone(), dx.clone()],
                ));
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{gradient_check, run_cases};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    #[test]
    fn gradients_match_finite_differences() {
        for kind in Activation::ALL {
            gradient_check(&[&[3, 5]], |g, x| {
                let mid = g.activation(x[0], Activation::Tanh);
                Ok(g.activation(mid, kind))
            });
        }
    }
}
