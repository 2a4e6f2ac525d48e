//! Layers whose forward product takes 16-bit floats.
//!
//! ```rust
//! use tern_engine::{Activation, Arena, Data, Device, Graph, Init, Parameters};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let mut parameters = Parameters::new();
//! let weight = parameters.add("weight", &[1, 4], Init::Constant(1.0))?;
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let x = graph.constant(2049.0, &[1, 4]);
//! let exact = graph.linear(x, &weight, None, Activation::Identity)?;
//! let rounded = graph.linear_half(x, &weight, None, Activation::Identity)?;
//! graph.keep(exact);
//! graph.keep(rounded);
//! let mut plan = graph.forward()?;
//! plan.run(1)?;
//! // 16 bits have no 2049: the inputs are rounded to 2048, the sum of them is not.
//! assert_eq!(plan.read(exact)?, Data::F32(vec![4.0 * 2049.0]));
//! assert_eq!(plan.read(rounded)?, Data::F32(vec![4.0 * 2048.0]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::kernels::half::{NT, PACK, Pack};
use tern_shaders::kernels::matmul::{Gemm, MAX_LOOP, Order};
use tern_shaders::{Activation, Feature, Variant};

use super::matmul;
use super::{Case, noise};
use crate::{Data, Error, Graph, Param, Result, Tensor};

impl Graph {
    /// [`Graph::linear`] whose forward product reads inputs and weights as 16-bit floats, which
    /// hardware with matrix units multiplies many times as fast; sums, results and gradients are
    /// 32-bit floats. Parameters stay 32-bit floats and are rounded in every step, as in mixed
    /// precision training (Micikevicius et al. 2018); the gradient takes no notice of the
    /// rounding. Inputs and weights beyond ±65,504 become infinite. Shapes as there.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the sizes go together and `in` is a multiple of four of at most
    /// 30,720.
    pub fn linear_half(
        &mut self,
        x: Tensor,
        weight: &Param,
        bias: Option<&Param>,
        activation: Activation,
    ) -> Result<Tensor> {
        let width = weight.shape.last().copied().unwrap_or(0);
        if !width.is_multiple_of(4) || width > MAX_LOOP as usize {
            let what = format!(
                "{} {:?}: rows of halves are a multiple of 4 and at most {MAX_LOOP}",
                weight.name, weight.shape
            );
            return Err(Error::shape("linear_half", what));
        }
        // Cooperative matrices come out as they were summed up: what they pay for, the activation
        // is a dispatch of its own.
        let n = weight.shape.first().copied().unwrap_or(0);
        let size = [self.len(x) / width.max(1), n, width];
        let apart = activation != Activation::Identity
            && by_matrices(size, |variant| self.arena.device().supports(variant));
        let fused = if apart { Activation::Identity } else { activation };
        let record = |graph: &mut Graph, product: matmul::Gemm| product.record_halves(graph);
        let y = self.linear_by(x, weight, bias, fused, record)?;
        Ok(if apart { self.activation(y, activation) } else { y })
    }
}

/// Whether a product of dense operands of this size is one for cooperative matrices, on a device
/// that `supports` some variants.
fn by_matrices([m, n, k]: [usize; 3], supports: impl Fn(&Variant) -> bool) -> bool {
    let [m, n, k] = [m, n, k].map(|size| size as u32);
    let p = Gemm { m, n, k, a_row: k, b_row: k, c_row: n, splits: 1, ..Default::default() };
    let fits = |v: &&Variant| v.features.contains(&Feature::CooperativeMatrix) && supports(v);
    NT.variants.iter().filter(fits).any(|v| (v.fits)(bytemuck::bytes_of(&p)))
}

/// Words of two halves each of what floats hold.
fn halves(floats: &Data, n: usize) -> Data {
    let Data::F32(x) = floats else { unreachable!("floats are packed") };
    let padded: Vec<f32> = x.iter().copied().chain(std::iter::repeat(0.0)).take(n).collect();
    let mut words = vec![0; n / 2];
    let params = Pack { n: n as u32, offset: 0, stride: n as u32 };
    tern_shaders::kernels::half::pack(&params, 1, &padded, &mut words);
    Data::U32(words)
}

/// A product of halves, of the sizes and operands of a product of floats.
fn product(size: [usize; 3], replicas: usize, set: impl Fn(&mut Gemm)) -> Case {
    let mut case = matmul::case(Order::Nt, size, replicas, 0, set);
    case.kernel = &NT;
    for buffer in &mut case.buffers[..2] {
        *buffer = halves(buffer, buffer.len().next_multiple_of(2));
    }
    case
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [[1, 1, 4], [3, 5, 8], [10, 68, 36], [13, 90, 32], [65, 129, 20], [64, 64, 32]] {
        for replicas in [1, 3] {
            cases.push(product(size, replicas, |_| ()));
        }
    }
    for kind in Activation::ALL {
        cases.push(product([7, 10, 12], 2, |p| (p.has_bias, p.activation) = (1, kind as u32)));
    }
    // Tiles of cooperative matrices: one, some, a last one beside none.
    for size in [[64, 64, 16], [128, 192, 48], [192, 64, 32]] {
        cases.push(product(size, 2, |p| p.has_bias = 1));
    }
    cases.push(product([64, 128, 32], 2, |p| p.accumulate = 1));
    cases.push(product([64, 128, 32], 2, |p| (p.has_bias, p.activation) = (1, 1)));
    cases.push(product([20, 72, 40], 2, |p| (p.accumulate, p.has_bias) = (1, 1)));
    cases.push(product([12, 20, 100], 2, |p| p.splits = 3));
    cases.push(product([5, 72, MAX_LOOP as usize], 1, |_| ()).tolerance(1e-4));
    for (n, replicas) in [(2, 1), (130, 3), (4098, 2)] {
        // Numbers of all sizes: small ones, and some beyond what a half holds.
        let Data::F32(mut x) = noise(n * replicas, 1.0, 5) else { unreachable!("noise is floats") };
        x.iter_mut().enumerate().for_each(|(i, x)| *x *= 2f32.powi(i as i32 % 44 - 27));
        let params = Pack { n: n as u32, offset: 0, stride: n as u32 };
        let buffers = vec![Data::F32(x), Data::U32(vec![7; n / 2 * replicas])];
        cases.push(Case::new(
            &PACK,
            format!("{n} numbers, {replicas} replicas"),
            &params,
            replicas,
            buffers,
        ));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{run_cases, software};
    use crate::{Arena, Device, Element, Init, Parameters, Trainable};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    /// A layer and its gradients agree with those of 32-bit floats to the rounding of halves.
    #[test]
    fn a_layer_of_halves_is_near_the_layer_of_floats() {
        let mut parameters = Parameters::new();
        let w = parameters.add("fc.weight", &[24, 32], Init::Uniform(0.5)).unwrap();
        let b = parameters.add("fc.bias", &[24], Init::Uniform(0.5)).unwrap();
        let devices = software().iter().map(|(_, device)| device.clone());
        for device in [Device::reference_f64(), Device::cpu()].into_iter().chain(devices) {
            let arena = Arena::new(&device, &parameters, &[1, 2]).unwrap();
            let mut results = Vec::new();
            for halves in [false, true] {
                let mut g = Graph::new(&arena);
                let x = g.input("x", &[5, 32], Element::F32);
                let y = match halves {
                    false => g.linear(x, &w, Some(&b), Activation::Tanh),
                    true => g.linear_half(x, &w, Some(&b), Activation::Tanh),
                }
                .unwrap();
                let dy = g.constant(1.0, &[5, 24]);
                g.keep(y);
                let (mut plan, gradients) = g.gradients(&[(y, dy)], &Trainable::All, &[x]).unwrap();
                plan.write(x, &noise(2 * 5 * 32, 1.0, 3)).unwrap();
                plan.run(1).unwrap();
                let mut found = plan.read_f64(y).unwrap();
                found.extend(plan.read_f64(gradients[0].unwrap()).unwrap());
                results.push(found);
            }
            let pairs = || results[0].iter().zip(&results[1]);
            assert!(pairs().any(|(a, b)| a != b), "halves round on {}", device.name());
            assert!(pairs().all(|(a, b)| (a - b).abs() < 4e-3), "{}", device.name());
        }
    }

    /// Its self-test runs these cases.
    #[test]
    fn cases_of_cooperative_matrices_add_a_bias_and_what_was_there() {
        let matrices = |v: &&Variant| v.features.contains(&Feature::CooperativeMatrix);
        let variant = NT.variants.iter().find(matrices).unwrap();
        let fitting = cases().into_iter().filter(|case| case.kernel.name == NT.name);
        let sizes: Vec<Gemm> = fitting
            .map(|case| *bytemuck::from_bytes::<Gemm>(bytemuck::cast_slice(&case.params)))
            .filter(|p| (variant.fits)(bytemuck::bytes_of(p)))
            .collect();
        let any = |what: fn(&Gemm) -> bool| sizes.iter().any(what);
        assert!(any(|p| p.has_bias == 1 && p.n > 128 && p.m > 64), "{sizes:?}");
        assert!(any(|p| p.accumulate == 1), "{sizes:?}");
        assert!(any(|p| p.has_bias == 0 && p.accumulate == 0), "{sizes:?}");
    }

    #[test]
    fn activations_are_apart_where_cooperative_matrices_compute() {
        let no_matrices = |v: &Variant| !v.features.contains(&Feature::CooperativeMatrix);
        assert!(by_matrices([128, 64, 32], |_| true));
        assert!(!by_matrices([128, 64, 32], no_matrices));
        assert!(!by_matrices([100, 64, 32], |_| true));
    }

    #[test]
    fn odd_widths_are_refused() {
        let mut parameters = Parameters::new();
        let w = parameters.add("w", &[5, 6], Init::Zeros).unwrap();
        let mut g = Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap());
        let x = g.input("x", &[2, 6], Element::F32);
        let message = g.linear_half(x, &w, None, Activation::Relu).unwrap_err().to_string();
        assert!(message.contains("[5, 6]"), "{message}");
    }
}
