//! Matrix products of tensors, and the linear layer.
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
//! let a = graph.input("a", &[2, 2], Element::F32);
//! let b = graph.input("b", &[2, 1], Element::F32);
//! let c = graph.matmul(a, b)?;
//! graph.keep(c);
//! let mut plan = graph.forward()?;
//! plan.write(a, &Data::F32(vec![1.0, 2.0, 3.0, 4.0]))?;
//! plan.write(b, &Data::F32(vec![10.0, 1.0]))?;
//! plan.run(1)?;
//! assert_eq!(plan.read(c)?, Data::F32(vec![12.0, 34.0]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::kernels::matmul::{self, Order};
use tern_shaders::kernels::pointwise::{ACTIVATION_BACKWARD, ActivationBackward};
use tern_shaders::{Activation, Element, MAX_GROUPS};

use super::Case;
pub(crate) use super::gemm::{Gemm, Matrix};
use super::pointwise::broadcast;
use super::reduce::sum_columns;
use crate::{Backward, Data, Error, Graph, Param, Result, Tensor};

impl Graph {
    /// C = A·B. Shapes: `a [..., k]`, `b [k, n]`, result `[..., n]`; or `a [..., m, k]`,
    /// `b [..., k, n]`, result `[..., m, n]`, a product for each place of the leading axes, which are
    /// repeated as [`Graph::broadcast_to`] says where they differ.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the sizes go together; [`Error::Value`] for more than 65,535 products
    /// side by side.
    pub fn matmul(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        let wrong = |g: &Self| {
            let what = format!("{:?} by {:?}, expected [..., k] by [k, n]", g.shape(a), g.shape(b));
            Error::shape("matmul", what)
        };
        if self.shape(b).len() > 2 {
            return self.matmul_of_items(a, b);
        }
        let &[k, n] = self.shape(b) else { return Err(wrong(self)) };
        let mut shape = self.shape(a).to_vec();
        if shape.pop() != Some(k) {
            return Err(wrong(self));
        }
        let m = shape.iter().product();
        shape.push(n);
        let c = self.tensor("matmul", &shape, Element::F32);
        let [left, right, result] = [a, b, c].map(|t| Matrix::tensor(self, t));
        Gemm::new(Order::Nn, [m, n, k], left, right, result).record(self);
        self.on_backward(&[a, b], &[], &[c], move |g| {
            let Some(dc) = g.gradient(c) else { return Ok(()) };
            let [left, right, upstream] = [a, b, dc].map(|t| Matrix::tensor(g, t));
            if let Some((da, flag)) = g.target(a) {
                let to = Matrix::tensor(g, da);
                Gemm::new(Order::Nt, [m, k, n], upstream, right, to).accumulate(flag).record(g);
            }
            if let Some((db, flag)) = g.target(b) {
                let to = Matrix::tensor(g, db);
                Gemm::new(Order::Tn, [k, n, m], left, upstream, to).accumulate(flag).record(g);
            }
            Ok(())
        });
        Ok(c)
    }

    /// Products of the matrices that the last two axes are.
    fn matmul_of_items(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        self.check_floats("matmul", a)?;
        self.check_floats("matmul", b)?;
        let shapes = match (self.shape(a), self.shape(b)) {
            ([left @ .., m, k], [right @ .., inner, n]) if k == inner => {
                broadcast(left, right).map(|lead| (lead, [*m, *n, *k]))
            }
            _ => None,
        };
        let Some((lead, [m, n, k])) = shapes else {
            let (a, b) = (self.shape(a), self.shape(b));
            let what = format!("{a:?} by {b:?}, expected [..., m, k] by [..., k, n]");
            return Err(Error::shape("matmul", what));
        };
        let items = lead.iter().product::<usize>();
        if items * self.arena.tile() > MAX_GROUPS as usize {
            let expected = format!("{} a replica at most", MAX_GROUPS as usize / self.arena.tile());
            return Err(Error::value("products side by side", items, expected));
        }
        let a = self.broadcast_to(a, &[&lead[..], &[m, k]].concat())?;
        let b = self.broadcast_to(b, &[&lead[..], &[k, n]].concat())?;
        let c = self.tensor("matmul", &[&lead[..], &[m, n]].concat(), Element::F32);
        let [left, right, result] = [a, b, c].map(|t| Matrix::items(self, t));
        Gemm::new(Order::Nn, [m, n, k], left, right, result).items(items).record(self);
        self.on_backward(&[a, b], &[], &[c], move |g| {
            let Some(dc) = g.gradient(c) else { return Ok(()) };
            let [left, right, upstream] = [a, b, dc].map(|t| Matrix::items(g, t));
            if let Some((da, flag)) = g.target(a) {
                let to = Matrix::items(g, da);
                let product = Gemm::new(Order::Nt, [m, k, n], upstream, right, to);
                product.accumulate(flag).items(items).record(g);
            }
            if let Some((db, flag)) = g.target(b) {
                let to = Matrix::items(g, db);
                let product = Gemm::new(Order::Tn, [k, n, m], left, upstream, to);
                product.accumulate(flag).items(items).record(g);
            }
            Ok(())
        });
        Ok(c)
    }

    /// y = act(x·Wᵀ + b), PyTorch's layout. Shapes: `x [..., in]`, `weight [out, in]`,
    /// `bias [out]`, result `[..., out]`. The [precision](Graph::in_precision) may be another.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the sizes go together.
    pub fn linear(
        &mut self,
        x: Tensor,
        weight: &Param,
        bias: Option<&Param>,
        activation: Activation,
    ) -> Result<Tensor> {
        let sizes = match (self.shape(x), &weight.shape[..], bias.map(|b| &b.shape[..])) {
            ([lead @ .., i], &[out, inner], None) if *i == inner => Some((lead, out, inner)),
            ([lead @ .., i], &[out, inner], Some(&[o])) if *i == inner && o == out => {
                Some((lead, out, inner))
            }
            _ => None,
        };
        let Some((lead, n, k)) = sizes else {
            let (x, bias) = (self.shape(x), bias.map(|b| &b.shape));
            let what = format!("x {x:?}, {} {:?}, bias {bias:?}", weight.name, weight.shape);
            return Err(Error::shape("linear", what));
        };
        let size = [lead.iter().product(), n, k];
        let shape = [lead, &[n]].concat();
        let packed = self.packed_operands(x, weight, size);
        // Backward needs the sum before the activation, where the derivative is no function
        // of the output.
        let fuses = activation.from_output() && !packed.as_ref().is_some_and(|p| p.by_matrices);
        let fused = if fuses { activation } else { Activation::Identity };
        let y = self.tensor("linear", &shape, Element::F32);
        let [input, result] = [x, y].map(|t| Matrix::tensor(self, t));
        let product = match &packed {
            Some(packed) => packed.product(self, result),
            None => Gemm::new(Order::Nt, size, input, Matrix::weight(self, weight), result),
        };
        product.bias(bias.map(|b| Matrix::weight(self, b))).activation(fused).record(self);
        let (w, b) = (weight.clone(), bias.cloned());
        let weights: Vec<&Param> = [weight].into_iter().chain(bias).collect();
        self.on_backward(&[x], &weights, &[y], move |g| {
            let Some(dz) = before_activation(g, y, fused) else { return Ok(()) };
            let mut packed = packed.as_ref().map(|packed| packed.backward(dz));
            let [m, n, k] = size;
            let [input, upstream] = [x, dz].map(|t| Matrix::tensor(g, t));
            if let Some((dx, flag)) = g.target(x) {
                let to = Matrix::tensor(g, dx);
                let packed = packed.as_mut().and_then(|packed| packed.of_input(g, &w, to));
                let product = packed.unwrap_or_else(|| {
                    Gemm::new(Order::Nn, [m, k, n], upstream, Matrix::weight(g, &w), to)
                });
                product.accumulate(flag).record(g);
            }
            if let Some(flag) = g.weight_target(&w) {
                let to = Matrix::gradient(g, &w);
                let packed = packed.as_mut().and_then(|packed| packed.of_weight(g, to));
                let product =
                    packed.unwrap_or_else(|| Gemm::new(Order::Tn, [n, k, m], upstream, input, to));
                product.accumulate(flag).record(g);
            }
            if let Some(b) = &b {
                bias_gradient(g, dz, b);
            }
            Ok(())
        });
        Ok(if fused == activation { y } else { self.activation(y, activation) })
    }
}

/// The gradient of z where y = act(z), from that of y.
fn before_activation(g: &mut Backward<'_>, y: Tensor, activation: Activation) -> Option<Tensor> {
    let dy = g.gradient(y)?;
    if activation == Activation::Identity {
        return Some(dy);
    }
    let shape = g.shape(y).to_vec();
    let dz = g.tensor("d before activation", &shape, Element::F32);
    let (n, kind) = (g.len(y) as u32, activation as u32);
    let params = ActivationBackward { n, kind, accumulate: 0 };
    g.dispatch(&ACTIVATION_BACKWARD, &params, &[y.into(), y.into(), dy.into(), dz.into()]);
    Some(dz)
}

/// Records a bias gradient: the column sums of the gradient of what it was added to, `dz [...,
/// n]`.
pub(crate) fn bias_gradient(g: &mut Backward<'_>, dz: Tensor, bias: &Param) {
    if let Some(flag) = g.weight_target(bias) {
        let size = [g.len(dz) / bias.len(), bias.len()];
        let out = (Backward::GRADIENTS, bias.offset, g.parameter_stride());
        sum_columns(g, dz, size, out, flag);
    }
}

/// A case with dense operands moved by `offset` words.
pub(super) fn case(
    order: Order,
    [m, n, k]: [usize; 3],
    replicas: usize,
    offset: usize,
    set: impl Fn(&mut matmul::Gemm),
) -> Case {
    let (a_row, b_row) = match order {
        Order::Nn => (k, n),
        Order::Nt => (k, k),
        Order::Tn => (m, n),
    };
    let mut p = matmul::Gemm {
        m: m as u32,
        n: n as u32,
        k: k as u32,
        a_offset: offset as u32,
        a_stride: (m * k) as u32,
        a_row: a_row as u32,
        b_offset: offset as u32,
        b_stride: (n * k) as u32,
        b_row: b_row as u32,
        c_offset: offset as u32,
        c_stride: (m * n) as u32,
        c_row: n as u32,
        bias_offset: offset as u32,
        bias_stride: n as u32,
        splits: 1,
        ..Default::default()
    };
    set(&mut p);
    p.c_stride *= p.splits;
    let words = |stride: u32, one: usize| {
        let seeds = 0..offset + one.max(stride as usize * replicas);
        Data::F32(seeds.map(|i| ((i * 7919 + one) % 1013) as f32 / 506.5 - 1.0).collect())
    };
    let buffers = vec![
        words(p.a_stride, m * k),
        words(p.b_stride, n * k),
        words(p.bias_stride, n),
        words(p.c_stride, m * n),
    ];
    let flags = [("bias", p.has_bias), ("added", p.accumulate), ("activated", p.activation)];
    let flags: String = flags.iter().filter(|f| f.1 > 0).map(|f| format!(", {}", f.0)).collect();
    let label = format!("{m}x{n}x{k}, {replicas} replicas, {} parts{flags}", p.splits);
    Case::new(order.kernel(), label, &p, replicas, buffers).flops(2 * (m * n * k * replicas) as u64)
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for order in [Order::Nn, Order::Nt, Order::Tn] {
        // One element, odd sizes, a tile and one more, aligned and not, skinny either way.
        for size in [
            [1, 1, 1],
            [3, 5, 7],
            [10, 68, 36],
            [13, 90, 33],
            [36, 36, 19],
            [65, 129, 20],
            [68, 132, 24],
        ] {
            for (replicas, offset) in [(1, 0), (3, 1), (2, 64)] {
                cases.push(case(order, size, replicas, offset, |_| ()));
            }
        }
        for kind in Activation::ALL {
            cases.push(case(order, [7, 10, 12], 2, 64, |p| {
                (p.has_bias, p.activation, p.accumulate) = (1, kind as u32, 0);
            }));
        }
        cases.push(case(order, [20, 72, 40], 2, 0, |p| (p.accumulate, p.has_bias) = (1, 1)));
        // Enough for the largest tiles.
        cases.push(case(order, [1028, 1024, 20], 1, 0, |_| ()));
        // Operands that all replicas share.
        cases.push(case(order, [9, 12, 8], 3, 0, |p| (p.a_stride, p.b_stride) = (0, 0)));
        // Parts of K, the last one empty or short.
        for (k, splits) in [(100, 3), (33, 4), (64, 4)] {
            cases.push(case(order, [12, 20, k], 2, 0, |p| p.splits = splits));
        }
        // The longest sum of one invocation: an early end of a loop would show.
        let k = matmul::MAX_LOOP as usize;
        for size in [[5, 72, k], [3, 5, k - 1]] {
            cases.push(case(order, size, 1, 0, |_| ()).tolerance(1e-4));
        }
    }
    cases
}

#[cfg(test)]
mod tests;
