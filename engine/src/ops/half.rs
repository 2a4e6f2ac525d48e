//! Linear layers whose products multiply numbers of 16 bits.
//!
//! ```rust
//! use tern_engine::{Activation, Arena, Data, Device, Graph, Init, Parameters, Precision};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let mut parameters = Parameters::new();
//! let weight = parameters.add("weight", &[1, 4], Init::Constant(1.0))?;
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let x = graph.constant(2049.0, &[1, 4]);
//! let layer = |graph: &mut Graph| graph.linear(x, &weight, None, Activation::Identity);
//! let exact = layer(&mut graph)?;
//! let rounded = graph.in_precision(Precision::Half, layer)?;
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

use serde::{Deserialize, Serialize};
use tern_shaders::kernels::half::{Format, NT, NT_BF16, PACK, Pack, TRANSPOSE, Transpose};
use tern_shaders::kernels::matmul::{Gemm, MAX_LOOP, Order};
use tern_shaders::{Activation, Element, Feature, Kernel, Variant};

use super::gemm::{self, Matrix};
use super::matmul;
use super::{Case, noise};
use crate::recompute::operands;
use crate::{Backward, Data, Graph, Operand, Param, Tensor};

/// The numbers that the products of linear layers multiply, forward and backward (mixed precision;
/// Micikevicius et al. 2018). Sums, results and parameters are 32-bit floats whatever they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Single,
    /// IEEE 754's 16 bits: 11 binary digits, fewer below 6e-5 and none below 6e-8, and infinite beyond
    /// ±65,504. Gradients are small: training goes with a [factor on the loss](crate::LossScale).
    Half,
    /// bfloat16: 8 digits, and all of a 32-bit float's range. Multiplied as 32-bit floats, since no shader
    /// has them.
    Bf16,
}

impl Precision {
    fn format(self) -> Option<Format> {
        match self {
            Precision::Single => None,
            Precision::Half => Some(Format::Half),
            Precision::Bf16 => Some(Format::Bf16),
        }
    }
}

impl Graph {
    /// Records linear layers whose three products (of the output, of the input's gradient and of the
    /// weight's) multiply inputs, weights and gradients rounded to 16 bits, which hardware with matrix
    /// units multiplies many times as fast. For these products the backward pass keeps the layers' inputs
    /// in 16 bits, which is half of their memory where no other op's gradient reads them; an input that is
    /// a layer's output after an activation is kept in both. Parameters stay 32-bit floats and are rounded
    /// in every step.
    ///
    /// A layer is computed so where its inputs' width is a multiple of four. Of the gradients then that of
    /// the input is where the outputs' width is one, too, and that of the weight where the number of rows
    /// is and the outputs' width is even; any other is a product of 32-bit floats. All other ops are as
    /// ever.
    pub fn in_precision<T>(
        &mut self,
        precision: Precision,
        record: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = std::mem::replace(&mut self.precision, precision);
        let result = record(self);
        self.precision = before;
        result
    }

    /// The operands of a layer y = x·Wᵀ of `size` = [m, n, k] in 16 bits, where they are wanted and its
    /// sizes allow it.
    pub(super) fn packed_operands(
        &mut self,
        x: Tensor,
        weight: &Param,
        size: [usize; 3],
    ) -> Option<Packed> {
        let [m, n, k] = size;
        let format = self.precision.format().filter(|_| k.is_multiple_of(4))?;
        let x = self.packed_input(format, x, [m, k]);
        let weight = Matrix::weight(self, weight).packed(self, format, "packed weight", [n, k]);
        let by_matrices = format == Format::Half
            && by_matrices(size, |variant| self.arena.device().supports(variant));
        Some(Packed { format, size, x, weight, by_matrices })
    }

    /// A layer's input, packed once for layers that read the same one after the other.
    fn packed_input(&mut self, format: Format, x: Tensor, size: [usize; 2]) -> Tensor {
        let root = self.root(x);
        if let Some(last) = self.packed.as_ref().filter(|p| (p.root, p.format) == (root, format)) {
            let x = Operand::Tensor(Tensor(root, x.1));
            let since = self.calls[last.calls..].iter().flat_map(|call| operands(self, call));
            if !since.into_iter().any(|(operand, written)| written && operand == x) {
                return last.words;
            }
        }
        let words = Matrix::tensor(self, x).packed(self, format, "packed input", size);
        self.packed = Some(LastPacked { root, format, words, calls: self.calls.len() });
        words
    }

    /// The transpose of packed rows.
    fn transposed(&mut self, words: Tensor, [rows, columns]: [usize; 2]) -> Tensor {
        let result = self.tensor("transposed", &[columns, rows / 2], Element::U32);
        let params = Transpose { rows: rows as u32, columns: columns as u32 };
        self.dispatch(&TRANSPOSE, &params, &[words.into(), result.into()]);
        result
    }
}

/// The tensor that was packed last, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastPacked {
    root: usize,
    format: Format,
    words: Tensor,
    calls: usize,
}

/// The operands of a layer's product in 16 bits: `x [m, k]` and `weight [n, k]`.
pub(super) struct Packed {
    format: Format,
    size: [usize; 3],
    x: Tensor,
    weight: Tensor,
    /// Whether cooperative matrices compute the product. They come out as they were summed up: what they
    /// pay for, the activation is a dispatch of its own.
    pub by_matrices: bool,
}

impl Packed {
    /// C = x·Wᵀ
    pub fn product(&self, graph: &Graph, c: Matrix) -> gemm::Gemm {
        gemm::Gemm::packed(self.format, graph, self.size, [self.x, self.weight], c)
    }

    /// What the backward pass multiplies, given the product's gradient `dz [m, n]`.
    pub fn backward(&self, dz: Tensor) -> PackedBackward {
        let &Packed { format, size, x, .. } = self;
        PackedBackward { format, size, x, dz, packed: None }
    }
}

/// [`Packed`] in the backward pass.
pub(super) struct PackedBackward {
    format: Format,
    size: [usize; 3],
    x: Tensor,
    /// The product's gradient.
    dz: Tensor,
    /// The same in 16 bits, for the product that is recorded first and the other one.
    packed: Option<Tensor>,
}

impl PackedBackward {
    fn gradient(&mut self, g: &mut Backward<'_>) -> Tensor {
        let ([m, n, _], dz) = (self.size, self.dz);
        let pack = || Matrix::tensor(g, dz).packed(g, self.format, "packed gradient", [m, n]);
        *self.packed.get_or_insert_with(pack)
    }

    /// dx = dz·W
    pub fn of_input(
        &mut self,
        g: &mut Backward<'_>,
        weight: &Param,
        dx: Matrix,
    ) -> Option<gemm::Gemm> {
        let [m, n, k] = self.size;
        if !n.is_multiple_of(4) {
            return None;
        }
        let dz = self.gradient(g);
        // Rounded once more: it isn't kept from the forward pass until here.
        let weight = Matrix::weight(g, weight).packed(g, self.format, "packed weight", [n, k]);
        let weight = g.transposed(weight, [n, k]);
        Some(gemm::Gemm::packed(self.format, g, [m, k, n], [dz, weight], dx))
    }

    /// dW = dzᵀ·x
    pub fn of_weight(&mut self, g: &mut Backward<'_>, dw: Matrix) -> Option<gemm::Gemm> {
        let [m, n, k] = self.size;
        // A row of the gradient is words of two.
        if !m.is_multiple_of(4) || !n.is_multiple_of(2) {
            return None;
        }
        let dz = self.gradient(g);
        let dz = g.transposed(dz, [m, n]);
        let x = g.transposed(self.x, [m, k]);
        Some(gemm::Gemm::packed(self.format, g, [n, k, m], [dz, x], dw))
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

/// Words of two numbers each of what floats hold.
fn words(format: Format, floats: &Data, n: usize) -> Data {
    let Data::F32(x) = floats else { unreachable!("floats are packed") };
    let padded: Vec<f32> = x.iter().copied().chain(std::iter::repeat(0.0)).take(n).collect();
    let mut words = vec![0; n / 2];
    let params = Pack { n: n as u32, offset: 0, stride: n as u32, format: format as u32 };
    tern_shaders::kernels::half::pack(&params, 1, &padded, &mut words);
    Data::U32(words)
}

/// A product of packed numbers, of the sizes and operands of a product of floats.
fn product_of(
    (format, kernel): (Format, &'static Kernel<Gemm>),
    size: [usize; 3],
    replicas: usize,
    set: impl Fn(&mut Gemm),
) -> Case {
    let mut case = matmul::case(Order::Nt, size, replicas, 0, set);
    case.kernel = kernel;
    for buffer in &mut case.buffers[..2] {
        *buffer = words(format, buffer, buffer.len().next_multiple_of(2));
    }
    case
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for of in [(Format::Half, &NT), (Format::Bf16, &NT_BF16)] {
        let product = |size, replicas, set: &dyn Fn(&mut Gemm)| product_of(of, size, replicas, set);
        for size in [[1, 1, 4], [3, 5, 8], [10, 68, 36], [13, 90, 32], [65, 129, 20], [64, 64, 32]]
        {
            for replicas in [1, 3] {
                cases.push(product(size, replicas, &|_| ()));
            }
        }
        for kind in Activation::ALL {
            let set = |p: &mut Gemm| (p.has_bias, p.activation) = (1, kind as u32);
            cases.push(product([7, 10, 12], 2, &set));
        }
        // Tiles of cooperative matrices: one, some, a last one beside none.
        for size in [[64, 64, 16], [128, 192, 48], [192, 64, 32]] {
            cases.push(product(size, 2, &|p| p.has_bias = 1));
        }
        cases.push(product([64, 128, 32], 2, &|p| p.accumulate = 1));
        cases.push(product([64, 128, 32], 2, &|p| (p.has_bias, p.activation) = (1, 1)));
        cases.push(product([20, 72, 40], 2, &|p| (p.accumulate, p.has_bias) = (1, 1)));
        cases.push(product([12, 20, 100], 2, &|p| p.splits = 3));
        cases.push(product([5, 72, MAX_LOOP as usize], 1, &|_| ()).tolerance(1e-4));
    }
    for (format, n, replicas) in [
        (Format::Half, 2, 1),
        (Format::Half, 130, 3),
        (Format::Half, 4098, 2),
        (Format::Bf16, 130, 3),
        (Format::Bf16, 4098, 2),
    ] {
        // Numbers of all sizes: small ones, and some beyond what a half holds.
        let Data::F32(mut x) = noise(n * replicas, 1.0, 5) else { unreachable!("noise is floats") };
        x.iter_mut().enumerate().for_each(|(i, x)| *x *= 2f32.powi(i as i32 % 44 - 27));
        let params = Pack { n: n as u32, offset: 0, stride: n as u32, format: format as u32 };
        let buffers = vec![Data::F32(x), Data::U32(vec![7; n / 2 * replicas])];
        let label = format!("{n} numbers as {format:?}, {replicas} replicas");
        cases.push(Case::new(&PACK, label, &params, replicas, buffers));
    }
    for (rows, columns, replicas) in
        [(2u32, 2u32, 1usize), (16, 16, 1), (6, 34, 3), (130, 18, 2), (300, 514, 1)]
    {
        let n = (rows * columns / 2) as usize * replicas;
        let x = (0..n as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let params = Transpose { rows, columns };
        let buffers = vec![Data::U32(x), Data::U32(vec![7; n])];
        let label = format!("{rows} x {columns}, {replicas} replicas");
        cases.push(Case::new(&TRANSPOSE, label, &params, replicas, buffers));
    }
    cases
}

#[cfg(test)]
mod tests {
    use tern_shaders::kernels::half::unpack;

    use super::*;
    use crate::ops::testing::{run_cases, software};
    use crate::{Arena, Device, Flat, Init, Parameters, Trainable};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    /// Rounds as a format does.
    fn rounded(format: Format, x: &[f64]) -> Vec<f64> {
        let floats: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        let n = floats.len().next_multiple_of(2);
        let Data::U32(words) = words(format, &Data::F32(floats), n) else { unreachable!("words") };
        unpack::<f64>(format, &words)[..x.len()].to_vec()
    }

    /// C = A·Bᵀ of `[m, k]` and `[n, k]`.
    fn nt(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        a.chunks(k).flat_map(|a| b.chunks(k).map(|b| dot(a, b)).collect::<Vec<f64>>()).collect()
    }

    fn transposed(x: &[f64], columns: usize) -> Vec<f64> {
        (0..columns).flat_map(|j| x.iter().skip(j).step_by(columns).copied()).collect()
    }

    /// Output, dx and dW of a layer without bias on a device.
    fn layer(device: &Device, precision: Precision, [m, n, k]: [usize; 3]) -> [Vec<f64>; 3] {
        let mut parameters = Parameters::new();
        let w = parameters.add("fc.weight", &[n, k], Init::Uniform(0.5)).unwrap();
        let arena = Arena::new(device, &parameters, &[1, 2]).unwrap();
        let mut g = Graph::new(&arena);
        let x = g.input("x", &[m, k], Element::F32);
        let record = |g: &mut Graph| g.linear(x, &w, None, Activation::Identity);
        let y = g.in_precision(precision, record).unwrap();
        let dy = g.input("dy", &[m, n], Element::F32);
        g.keep(y);
        let (mut plan, gradients) = g.gradients(&[(y, dy)], &Trainable::All, &[x]).unwrap();
        plan.write(x, &noise(2 * m * k, 1.0, 3)).unwrap();
        plan.write(dy, &noise(2 * m * n, 1.0, 4)).unwrap();
        plan.run(1).unwrap();
        let dw = [0, 1].map(|r| arena.read_f64(Flat::Gradients, r).unwrap()[..n * k].to_vec());
        let dx = plan.read_f64(gradients[0].unwrap()).unwrap();
        [plan.read_f64(y).unwrap(), dx, dw.concat()]
    }

    /// Each of the three products multiplies rounded operands where the sizes allow it, and others where
    /// they don't.
    #[test]
    fn a_layer_multiplies_what_is_rounded() {
        let devices = software().iter().map(|(_, device)| device.clone());
        let devices: Vec<Device> = [Device::cpu()].into_iter().chain(devices).collect();
        for precision in [Precision::Single, Precision::Half, Precision::Bf16] {
            // All, no input's gradient, no weight's gradient twice, neither twice, nothing at all.
            let sizes = [
                ([8, 24, 32], [true; 3]),
                ([8, 6, 12], [true, false, true]),
                ([6, 8, 12], [true, true, false]),
                ([5, 8, 8], [true, true, false]),
                ([6, 10, 8], [true, false, false]),
                ([8, 7, 8], [true, false, false]),
                ([8, 8, 6], [false; 3]),
            ];
            for (size, [of_output, of_input, of_weight]) in sizes {
                let [m, n, k]: [usize; 3] = size;
                let round = |x: &[f64], when: bool| match precision.format().filter(|_| when) {
                    Some(format) => rounded(format, x),
                    None => x.to_vec(),
                };
                let floats =
                    |data: Data| data.floats().unwrap().iter().map(|x| f64::from(*x)).collect();
                let (x, dy): (Vec<f64>, Vec<f64>) =
                    (floats(noise(2 * m * k, 1.0, 3)), floats(noise(2 * m * n, 1.0, 4)));
                for device in &devices {
                    let found = layer(device, precision, size);
                    let [mut y, mut dx, mut dw] = [vec![], vec![], vec![]];
                    for (r, seed) in [1, 2].into_iter().enumerate() {
                        let mut parameters = Parameters::new();
                        parameters.add("fc.weight", &[n, k], Init::Uniform(0.5)).unwrap();
                        let w = floats(Data::F32(parameters.initial(seed)[..n * k].to_vec()));
                        let (x, dy) = (&x[r * m * k..][..m * k], &dy[r * m * n..][..m * n]);
                        y.extend(nt(&round(x, of_output), &round(&w, of_output), k));
                        let rows = transposed(&round(&w, of_input), k);
                        dx.extend(nt(&round(dy, of_input), &rows, n));
                        let columns = transposed(&round(x, of_weight), k);
                        dw.extend(nt(&transposed(&round(dy, of_weight), n), &columns, m));
                    }
                    for (found, expected) in found.iter().zip([y, dx, dw]) {
                        assert_eq!(found.len(), expected.len());
                        for (a, b) in found.iter().zip(&expected) {
                            let name = device.name();
                            assert!((a - b).abs() < 2e-5, "{name} {precision:?} {size:?}: {a} {b}");
                        }
                    }
                }
            }
        }
    }

    /// Layers that read one tensor read its numbers packed once, until it is written.
    #[test]
    fn an_input_is_packed_once() {
        let mut parameters = Parameters::new();
        let w = parameters.add("w", &[4, 4], Init::Uniform(0.5)).unwrap();
        let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
        let mut g = Graph::new(&arena);
        let x = g.input("x", &[4, 4], Element::F32);
        let packs = |g: &Graph| g.calls.iter().filter(|c| c.label.contains("half/pack")).count();
        g.in_precision(Precision::Bf16, |g| {
            let record = |g: &mut Graph, x| g.linear(x, &w, None, Activation::Identity).unwrap();
            let y = record(g, x);
            let before = packs(g);
            record(g, x);
            // The weight's alone.
            assert_eq!(packs(g) - before, 1);
            let view = g.reshape(x, &[2, 2, 4]).unwrap();
            record(g, view);
            assert_eq!(packs(g) - before, 2);
            g.copy_into(y, x).unwrap();
            record(g, x);
            assert_eq!(packs(g) - before, 4);
        });
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
}
