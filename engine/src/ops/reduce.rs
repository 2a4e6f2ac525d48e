//! Row, column and full reductions.
//!
//! ```rust
//! # use tern_engine::{Arena, Device, Init, Parameters};
//! use tern_engine::ops::reduce::Reduction;
//! use tern_engine::{Data, Element, Graph};
//!
//! # fn main() -> tern_engine::Result<()> {
//! # let mut parameters = Parameters::new();
//! # parameters.add("weight", &[1], Init::Zeros)?;
//! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let x = graph.input("x", &[2, 3], Element::F32);
//! let largest = graph.reduce_rows(x, Reduction::Max)?;
//! let mean = graph.mean(x);
//! graph.keep(largest);
//! graph.keep(mean);
//! let mut plan = graph.forward()?;
//! plan.write(x, &Data::F32(vec![1.0, 5.0, 3.0, -2.0, -1.0, -6.0]))?;
//! plan.run(1)?;
//! assert_eq!(plan.read(largest)?, Data::F32(vec![5.0, -1.0]));
//! assert_eq!(plan.read(mean)?, Data::F32(vec![0.0]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::Element;
pub use tern_shaders::kernels::reduce::Reduction;
use tern_shaders::kernels::reduce::{
    COLUMNS, Columns, MAX_LOOP, ROWS, ROWS_BACKWARD, Rows, RowsBackward, SUM, Sum,
};

use super::Case;
use crate::{Data, Error, Graph, Operand, Result, Tensor};

/// Elements that one part of a long sum holds.
const PART: usize = 4096;

/// Rows that one part of a column sum holds.
const PART_ROWS: usize = 1024;

/// Records out[n] (+)= Σ_m x[m, n] for a dense `x` of `[rows, columns]`; `out` is an operand,
/// the first word and the words from replica to replica.
pub(crate) fn sum_columns(
    graph: &mut Graph,
    x: Tensor,
    [rows, columns]: [usize; 2],
    out: (Operand, usize, usize),
    accumulate: u32,
) {
    let (operand, offset, stride) = out;
    let mut params = Columns {
        rows: rows as u32,
        columns: columns as u32,
        parts: 1,
        out_offset: offset as u32,
        out_stride: stride as u32,
        accumulate,
    };
    if rows < 2 * PART_ROWS {
        graph.dispatch(&COLUMNS, &params, &[x.into(), operand]);
        return;
    }
    let parts = rows.div_ceil(PART_ROWS);
    let partial = graph.tensor("parts of sums", &[parts, columns], Element::F32);
    params = Columns {
        parts: parts as u32,
        out_offset: 0,
        out_stride: (parts * columns) as u32,
        accumulate: 0,
        ..params
    };
    graph.dispatch(&COLUMNS, &params, &[x.into(), partial.into()]);
    sum_columns(graph, partial, [parts, columns], out, accumulate);
}

impl Graph {
    /// Σ of all elements; result `[1]`.
    pub fn sum(&mut self, x: Tensor) -> Tensor {
        self.total(x, Reduction::Sum)
    }

    /// Mean of all elements; result `[1]`.
    pub fn mean(&mut self, x: Tensor) -> Tensor {
        self.total(x, Reduction::Mean)
    }

    fn total(&mut self, x: Tensor, kind: Reduction) -> Tensor {
        let n = self.len(x);
        let mut from = x;
        let mut scale = if kind == Reduction::Mean { 1.0 / n as f32 } else { 1.0 };
        while self.len(from) > 1 || from == x {
            let parts = self.len(from).div_ceil(PART);
            let to = self.tensor("sum", &[parts], Element::F32);
            let params = Sum { n: self.len(from) as u32, parts: parts as u32, scale };
            self.dispatch(&SUM, &params, &[from.into(), to.into()]);
            (from, scale) = (to, 1.0);
        }
        self.spread_back(x, from, [1, n], kind);
        from
    }

    /// Sum, maximum or mean of every row. Shapes: `x [..., n]`, result `[...]`. A maximum's
    /// gradient goes to the first element that attains it.
    ///
    /// # Errors
    /// [`Error::Shape`] for a tensor without dimensions.
    pub fn reduce_rows(&mut self, x: Tensor, kind: Reduction) -> Result<Tensor> {
        let Some((&columns, lead)) = self.shape(x).split_last() else {
            return Err(Error::shape("reduce_rows", "a tensor without dimensions has no rows"));
        };
        let lead = lead.to_vec();
        let rows: usize = lead.iter().product();
        let y = self.tensor("rows", &lead, Element::F32);
        let params = Rows { rows: rows as u32, columns: columns as u32, kind: kind as u32 };
        self.dispatch(&ROWS, &params, &[x.into(), y.into()]);
        self.spread_back(x, y, [rows, columns], kind);
        Ok(y)
    }

    fn spread_back(&mut self, x: Tensor, y: Tensor, [rows, columns]: [usize; 2], kind: Reduction) {
        let (rows, columns, kind) = (rows as u32, columns as u32, kind as u32);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                let params = RowsBackward { rows, columns, kind, accumulate };
                let args = [x.into(), y.into(), dy.into(), dx.into()];
                b.dispatch(&ROWS_BACKWARD, &params, &args);
            }
            Ok(())
        });
    }
}

/// Values whose sum is far from zero, so that the error is relative to it.
fn values(n: usize) -> Data {
    Data::F32((0..n).map(|i| (i * 7919 % 1013) as f32 / 1000.0 - 0.25).collect())
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns, replicas) in [
        (1, 1, 1),
        (3, 5, 2),
        (7, 90, 3),
        (800, 33, 2),
        (2048, 4, 1),
        (70_000, 3, 1),
        (133, 2, 2),
        (70, 31, 3),
    ] {
        let n = rows * columns * replicas;
        let label = format!("{rows}x{columns}, {replicas} replicas");
        for (parts, accumulate) in [(1, 0), (1, 1), (4, 0)] {
            let params = Columns {
                rows: rows as u32,
                columns: columns as u32,
                parts,
                out_offset: 3,
                out_stride: parts * columns as u32 + 2,
                accumulate,
            };
            let out = values(3 + params.out_stride as usize * replicas);
            let label = format!("{label}, {parts} parts, accumulate {accumulate}");
            cases.push(Case::new(&COLUMNS, label, &params, replicas, vec![values(n), out]));
        }
        for kind in [Reduction::Sum, Reduction::Max, Reduction::Mean] {
            let label = format!("{label}, {kind:?}");
            let (rows, columns, kind) = (rows as u32, columns as u32, kind as u32);
            let (x, y) = (values(n), values(n / columns as usize));
            let params = Rows { rows, columns, kind };
            cases.push(Case::new(&ROWS, &label, &params, replicas, vec![x.clone(), y.clone()]));
            for accumulate in [0, 1] {
                let params = RowsBackward { rows, columns, kind, accumulate };
                let label = format!("{label}, accumulate {accumulate}");
                let buffers = vec![x.clone(), y.clone(), values(n / columns as usize), values(n)];
                cases.push(Case::new(&ROWS_BACKWARD, label, &params, replicas, buffers));
            }
        }
    }
    // One row as long as an invocation may take: an early end of its loop would show.
    let long = Rows { rows: 1, columns: MAX_LOOP, kind: 0 };
    let n = MAX_LOOP as usize;
    cases.push(Case::new(&ROWS, format!("1x{n}"), &long, 1, vec![values(n), values(1)]));
    for (n, parts, replicas) in [(1, 1, 1), (5, 7, 2), (1000, 3, 3), (n, 1, 1), (300_000, 74, 1)] {
        let params = Sum { n: n as u32, parts, scale: 0.5 };
        let buffers = vec![values(n * replicas), values(parts as usize * replicas)];
        let label = format!("{n}, {parts} parts, {replicas} replicas");
        cases.push(Case::new(&SUM, label, &params, replicas, buffers));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{gradient_check, run_cases, software};
    use crate::{Arena, Device, Init, Parameters};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    #[test]
    fn gradients_match_finite_differences() {
        for kind in [Reduction::Sum, Reduction::Max, Reduction::Mean] {
            gradient_check(&[&[3, 5]], |g, x| {
                let mid = g.activation(x[0], crate::Activation::Tanh);
                let rows = g.reduce_rows(mid, kind)?;
                Ok(g.activation(rows, crate::Activation::Sigmoid))
            });
        }
        gradient_check(&[&[4, 2]], |g, x| Ok(g.sum(x[0])));
        gradient_check(&[&[70, 70]], |g, x| Ok(g.mean(x[0])));
    }

    #[test]
    fn long_sums_take_several_levels() {
        let mut parameters = Parameters::new();
        parameters.add("unused", &[1], Init::Zeros).unwrap();
        let devices = software().iter().map(|(_, device)| device.clone());
        for device in devices.chain([Device::cpu()]) {
            let arena = Arena::new(&device, &parameters, &[1]).unwrap();
            let mut g = Graph::new(&arena);
            let x = g.input("x", &[5000, 1000], Element::F32);
            let (sum, mean) = (g.sum(x), g.mean(x));
            let columns = g.tensor("columns", &[1000], Element::F32);
            sum_columns(&mut g, x, [5000, 1000], (columns.into(), 0, 1000), 0);
            for t in [sum, mean, columns] {
                g.keep(t);
            }
            let mut plan = g.forward().unwrap();
            plan.write(x, &Data::F32(vec![0.1; 5_000_000])).unwrap();
            plan.run(1).unwrap();
            let mut close = |t, expected: f64| {
                let found = plan.read_f64(t).unwrap();
                assert!(
                    found.iter().all(|v| (v / expected - 1.0).abs() < 2e-6),
                    "{:?}, {} of {expected}",
                    device.name(),
                    found[0]
                );
            };
            close(sum, 500_000.0);
            close(mean, 0.1);
            close(columns, 500.0);
        }
    }
}
