//! SwiGLU.

use tern_shaders::Element;
use tern_shaders::kernels::pointwise::{
    SWIGLU_BACKWARD, SWIGLU_FORWARD, SwigluBackward, SwigluForward,
};

use crate::ops::{Case, noise};
use crate::{Data, Error, Graph, Result, Tensor};

impl Graph {
    /// SiLU(gate) · up, element by element (SwiGLU without its projections; Shazeer 2020). Shapes:
    /// both alike.
    ///
    /// # Errors
    /// [`Error::Shape`] unless both have the same shape.
    pub fn swiglu(&mut self, gate: Tensor, up: Tensor) -> Result<Tensor> {
        self.check_floats("swiglu", gate)?;
        self.check_floats("swiglu", up)?;
        let shape = self.shape(gate).to_vec();
        if shape != self.shape(up) {
            return Err(Error::shape("swiglu", format!("{shape:?} and {:?}", self.shape(up))));
        }
        // Each has a gradient of its own, which one dispatch writes.
        let up = if self.root(gate) == self.root(up) { self.scale(up, 1.0) } else { up };
        let n = self.len(gate) as u32;
        let y = self.tensor("swiglu", &shape, Element::F32);
        self.dispatch(&SWIGLU_FORWARD, &SwigluForward { n }, &[gate, up, y].map(Into::into));
        self.on_backward(&[gate, up], &[], &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            let targets = [gate, up].map(|x| b.target(x));
            if targets == [None, None] {
                return Ok(());
            }
            let [(dgate, gate_mode), (dup, up_mode)] = targets.map(|target| {
                // What nobody wants is written nowhere, but bound.
                target.unwrap_or_else(|| (b.tensor("unwanted", &shape, Element::F32), 2))
            });
            let params = SwigluBackward { n, gate_mode, up_mode };
            b.dispatch(&SWIGLU_BACKWARD, &params, &[gate, up, dy, dgate, dup].map(Into::into));
            Ok(())
        });
        Ok(y)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, replicas) in [(1u32, 1usize), (77, 3), (1000, 2)] {
        let all = n as usize * replicas;
        let all = |scale: f32, key: u32| noise(all, scale, key);
        let [gate, up, dy, y, dx] =
            [(20.0, 1), (2.0, 2), (2.0, 3), (1.0, 4), (1.0, 5)].map(|(scale, key)| all(scale, key));
        let buffers = [&gate, &up, &y].map(Data::clone).to_vec();
        let label = format!("{n}");
        cases.push(Case::new(&SWIGLU_FORWARD, &label, &SwigluForward { n }, replicas, buffers));
        for (gate_mode, up_mode) in [(0, 0), (0, 1), (1, 2), (2, 0)] {
            let params = SwigluBackward { n, gate_mode, up_mode };
            let buffers = [&gate, &up, &dy, &y, &dx].map(Data::clone).to_vec();
            let label = format!("{n} modes {gate_mode} {up_mode}");
            cases.push(Case::new(&SWIGLU_BACKWARD, label, &params, replicas, buffers));
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
        gradient_check(&[&[3, 4], &[3, 4]], |g, x| {
            let y = g.swiglu(x[0], x[1])?;
            // The other way round, and one tensor as both.
            let z = g.swiglu(x[1], y)?;
            g.swiglu(z, z)
        });
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let mut parameters = Parameters::new();
        parameters.add("w", &[1], Init::Zeros).unwrap();
        let mut g = Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap());
        let (a, b) = (g.input("a", &[3, 4], Element::F32), g.input("b", &[4], Element::F32));
        assert_eq!(g.swiglu(a, b).unwrap_err().to_string(), "swiglu: [3, 4] and [4]");
    }
}
