//! Floats from words, and words from floats.

use tern_shaders::Element;
use tern_shaders::kernels::pointwise::{Cast, TO_FLOATS, TO_WORDS};

use crate::ops::Case;
use crate::{Data, Graph, Tensor};

impl Graph {
    /// The same numbers as floats or as words; `x` itself where it has them. A float loses its fraction: below
    /// 0, and where it is no number, it becomes 0, from 2³² on 2³² − 1. A word becomes itself below 2²⁴, and
    /// a float beside it from there on. No gradient passes through, unless it is `x` that is returned.
    pub fn cast(&mut self, x: Tensor, element: Element) -> Tensor {
        if self.element(x) == element {
            return x;
        }
        let (params, shape) = (Cast { n: self.len(x) as u32 }, self.shape(x).to_vec());
        let y = self.tensor("cast", &shape, element);
        let kernel = if element == Element::F32 { &TO_FLOATS } else { &TO_WORDS };
        self.dispatch(kernel, &params, &[x.into(), y.into()]);
        y
    }
}

/// Cases of both kernels.
pub(super) fn cases() -> Vec<Case> {
    let edges = [
        0.0,
        -0.0,
        0.99,
        1.0,
        1.5,
        2.999_999_8,
        -0.5,
        -7.25,
        1e-38,
        8_388_607.5,
        16_777_217.0,
        2_147_483_648.0,
        4_294_967_040.0,
        4_294_967_296.0,
        3e38,
        -3e38,
    ];
    let words =
        [0, 1, 2, 65_535, 8_388_609, 16_777_216, 16_777_220, 1 << 31, u32::MAX - 255, u32::MAX];
    let mut cases = Vec::new();
    for (n, replicas) in [(1u32, 1usize), (5, 3), (1000, 2), (70_001, 1)] {
        let all = n as usize * replicas;
        let floats: Vec<f32> = edges.iter().copied().cycle().take(all).collect();
        let own: Vec<u32> = words.iter().copied().cycle().take(all).collect();
        let (label, params) = (format!("{n}, {replicas} replicas"), Cast { n });
        let buffers = vec![Data::U32(own), Data::F32(vec![9.0; all])];
        cases.push(Case::new(&TO_FLOATS, &label, &params, replicas, buffers));
        let buffers = vec![Data::F32(floats), Data::U32(vec![9; all])];
        cases.push(Case::new(&TO_WORDS, label, &params, replicas, buffers));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arena, Device, Init, Parameters};

    #[test]
    fn numbers_are_cast_there_and_back() {
        let mut parameters = Parameters::new();
        parameters.add("weight", &[1], Init::Zeros).unwrap();
        let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
        let mut g = Graph::new(&arena);
        let x = g.input("x", &[2, 3], Element::F32);
        assert_eq!(g.cast(x, Element::F32), x);
        let words = g.cast(x, Element::U32);
        let floats = g.cast(words, Element::F32);
        for t in [words, floats] {
            g.keep(t);
        }
        assert_eq!(g.shape(floats), [2, 3]);
        let mut plan = g.forward().unwrap();
        plan.write(x, &Data::F32(vec![1.9, -3.0, 255.0, 5e9, -1e-9, 0.0])).unwrap();
        plan.run(1).unwrap();
        assert_eq!(plan.read(words).unwrap(), Data::U32(vec![1, 0, 255, u32::MAX, 0, 0]));
        let expected = vec![1.0, 0.0, 255.0, 4_294_967_296.0, 0.0, 0.0];
        assert_eq!(plan.read(floats).unwrap(), Data::F32(expected));
    }
}
