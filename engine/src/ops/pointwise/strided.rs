//! Ops that change where elements are: axes in another order or backward, padding, broadcasting;
//! reduction over any axes; and a choice by a condition.

use tern_shaders::Element;
use tern_shaders::kernels::pointwise::{
    FILL, Fill, SCALE, STRIDED_COPY, Scale, StridedCopy, WHERE_BACKWARD, WHERE_FORWARD,
    WhereBackward, WhereForward,
};
use tern_shaders::kernels::reduce::{ROWS, Reduction, Rows};

use crate::ops::{Case, noise};
use crate::{Data, Error, Graph, Result, Tensor};

/// An axis of a copy: its elements, and from one to the next in x and in y.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Axis {
    pub size: usize,
    pub x: isize,
    pub y: isize,
}

/// A copy of elements from x to y, axis by axis from the outermost on.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Move {
    pub axes: Vec<Axis>,
    /// First elements.
    pub x: usize,
    pub y: usize,
}

/// Distances of the elements of each axis of a dense tensor.
fn strides(shape: &[usize]) -> Vec<isize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product::<usize>() as isize).collect()
}

/// That a tensor can have a shape that is asked for.
fn check_size(op: &'static str, shape: &[usize]) -> Result<()> {
    let n = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
    match n.filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok()) {
        Some(_) => Ok(()),
        None => Err(Error::shape(op, format!("{shape:?}: 1 to 2^32 - 1 elements"))),
    }
}

impl Move {
    /// The same, the other way around.
    fn back(&self) -> Move {
        let axes = self.axes.iter().map(|axis| Axis { size: axis.size, x: axis.y, y: axis.x });
        Move { axes: axes.collect(), x: self.y, y: self.x }
    }

    /// Axes of one element left out, and neighbors that are one axis joined.
    fn joined(&self) -> Vec<Axis> {
        let mut joined: Vec<Axis> = Vec::new();
        for axis in self.axes.iter().filter(|axis| axis.size != 1) {
            let steps = |step: isize| step * axis.size as isize;
            match joined.last_mut() {
                Some(last) if last.x == steps(axis.x) && last.y == steps(axis.y) => {
                    *last = Axis { size: last.size * axis.size, ..*axis };
                }
                _ => joined.push(*axis),
            }
        }
        joined
    }

    /// The kernel's parameters, for elements of a replica of x and of y.
    fn params(
        &self,
        op: &'static str,
        [x_replica, y_replica]: [usize; 2],
        accumulate: u32,
    ) -> Result<StridedCopy> {
        let joined = self.joined();
        let Some(missing) = 4usize.checked_sub(joined.len()) else {
            let what = format!("{} axes that can't be joined, expected at most 4", joined.len());
            return Err(Error::shape(op, what));
        };
        let one = Axis { size: 1, x: 0, y: 0 };
        let all: Vec<Axis> = vec![one; missing].into_iter().chain(joined).collect();
        // Strides are taken modulo 2^32.
        let [size, x, y] = [
            |axis: &Axis| axis.size as u32,
            |axis: &Axis| axis.x as u32,
            |axis: &Axis| axis.y as u32,
        ]
        .map(|of| [of(&all[0]), of(&all[1]), of(&all[2]), of(&all[3])]);
        // The innermost axis of one element is dense, as the others are.
        let inner = |strides: [u32; 4]| if size[3] == 1 { 1 } else { strides[3] };
        Ok(StridedCopy {
            size0: size[0],
            size1: size[1],
            size2: size[2],
            size3: size[3],
            x_offset: self.x as u32,
            x_stride0: x[0],
            x_stride1: x[1],
            x_stride2: x[2],
            x_stride3: inner(x),
            x_replica: x_replica as u32,
            y_offset: self.y as u32,
            y_stride0: y[0],
            y_stride1: y[1],
            y_stride2: y[2],
            y_stride3: inner(y),
            y_replica: y_replica as u32,
            accumulate,
        })
    }
}

impl Graph {
    /// Records a copy of elements from x to y.
    pub(in crate::ops) fn record_move(
        &mut self,
        op: &'static str,
        x: Tensor,
        y: Tensor,
        moved: &Move,
        accumulate: u32,
    ) -> Result<()> {
        let params = moved.params(op, [self.len(x), self.len(y)], accumulate)?;
        self.dispatch(&STRIDED_COPY, &params, &[x.into(), y.into()]);
        Ok(())
    }

    /// Records y from x, each of whose elements is moved to one place at most, and its backward.
    /// Whether the places make up all of y decides what of it is zero.
    fn moved(
        &mut self,
        op: &'static str,
        x: Tensor,
        shape: &[usize],
        moved: Move,
    ) -> Result<Tensor> {
        self.check_floats(op, x)?;
        let y = self.tensor(op, shape, Element::F32);
        if self.len(y) != self.len(x) {
            let n = self.len(y) as u32;
            self.dispatch(&FILL, &Fill { n, offset: 0, stride: n, value: 0.0 }, &[y.into()]);
        }
        self.record_move(op, x, y, &moved, 0)?;
        self.on_backward(&[x], &[], &[y], move |b| match (b.gradient(y), b.target(x)) {
            (Some(dy), Some((dx, accumulate))) => {
                b.record_move(op, dy, dx, &moved.back(), accumulate)
            }
            _ => Ok(()),
        });
        Ok(y)
    }

    /// The axes in another order: axis i of the result is axis `order[i]` of x.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `order` has each axis once, or for more than four groups of axes that
    /// stay together.
    pub fn permute(&mut self, x: Tensor, order: &[usize]) -> Result<Tensor> {
        let shape = self.shape(x).to_vec();
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..shape.len()) {
            return Err(Error::shape("permute", format!("{shape:?} in the order {order:?}")));
        }
        let result: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
        let (from, to) = (strides(&shape), strides(&result));
        let axes = order.iter().zip(to);
        let axes = axes.map(|(axis, y)| Axis { size: shape[*axis], x: from[*axis], y }).collect();
        self.moved("permute", x, &result, Move { axes, x: 0, y: 0 })
    }

    /// The same with an axis from its end to its start.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no such axis.
    pub fn flip(&mut self, x: Tensor, axis: usize) -> Result<Tensor> {
        let shape = self.shape(x).to_vec();
        if axis >= shape.len() {
            return Err(Error::shape("flip", format!("axis {axis} of {shape:?}")));
        }
        let steps = strides(&shape);
        let axes = shape.iter().zip(&steps).enumerate().map(|(at, (size, step))| Axis {
            size: *size,
            x: if at == axis { -step } else { *step },
            y: *step,
        });
        let last = (shape[axis] - 1) * steps[axis] as usize;
        self.moved("flip", x, &shape, Move { axes: axes.collect(), x: last, y: 0 })
    }

    /// Zeros before and after the elements of an axis.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no such axis.
    pub fn pad(&mut self, x: Tensor, axis: usize, [before, after]: [usize; 2]) -> Result<Tensor> {
        let shape = self.shape(x).to_vec();
        let mut result = shape.clone();
        let Some(size) = result.get_mut(axis) else {
            return Err(Error::shape("pad", format!("axis {axis} of {shape:?}")));
        };
        *size = size.saturating_add(before).saturating_add(after);
        check_size("pad", &result)?;
        let (from, to) = (strides(&shape), strides(&result));
        let axes = shape.iter().zip(from.iter().zip(&to));
        let axes = axes.map(|(size, (x, y))| Axis { size: *size, x: *x, y: *y }).collect();
        let start = before * to[axis] as usize;
        self.moved("pad", x, &result, Move { axes, x: 0, y: start })
    }

    /// x repeated to a shape, as NumPy does it: axes are matched from the last on, and one that is
    /// missing or has one element is repeated.
    ///
    /// # Errors
    /// [`Error::Shape`] unless each axis of x is of the shape or of one element.
    pub fn broadcast_to(&mut self, x: Tensor, shape: &[usize]) -> Result<Tensor> {
        let own = self.shape(x).to_vec();
        if own == shape {
            return Ok(x);
        }
        self.check_floats("broadcast_to", x)?;
        check_size("broadcast_to", shape)?;
        let missing = shape.len().checked_sub(own.len());
        let fits = missing.is_some_and(|missing| {
            own.iter().zip(&shape[missing..]).all(|(own, size)| own == size || *own == 1)
        });
        let (Some(missing), true) = (missing, fits) else {
            return Err(Error::shape("broadcast_to", format!("{own:?} to {shape:?}")));
        };
        let (from, to) = (strides(&own), strides(shape));
        let repeats = |axis: usize| axis < missing || own[axis - missing] != shape[axis];
        let axes = (0..shape.len()).map(|axis| Axis {
            size: shape[axis],
            x: if repeats(axis) { 0 } else { from[axis - missing] },
            y: to[axis],
        });
        let moved = Move { axes: axes.collect(), x: 0, y: 0 };
        let y = self.tensor("broadcast_to", shape, Element::F32);
        self.record_move("broadcast_to", x, y, &moved, 0)?;
        let repeated: Vec<usize> = (0..shape.len()).filter(|axis| repeats(*axis)).collect();
        let shape = shape.to_vec();
        self.on_backward(&[x], &[], &[y], move |b| {
            let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) else {
                return Ok(());
            };
            let (turned, [rows, columns]) = b.as_matrix("broadcast_to", dy, &shape, &repeated)?;
            let sums = b.tensor("sums of repetitions", &[rows], Element::F32);
            let kind = Reduction::Sum as u32;
            let params = Rows { rows: rows as u32, columns: columns as u32, kind };
            b.dispatch(&ROWS, &params, &[turned.into(), sums.into()]);
            let params = Scale { n: rows as u32, factor: 1.0, accumulate };
            b.dispatch(&SCALE, &params, &[sums.into(), dx.into()]);
            Ok(())
        });
        Ok(y)
    }

    /// Elements as a matrix, some of the axes along its rows; outside of differentiation.
    fn as_matrix(
        &mut self,
        op: &'static str,
        x: Tensor,
        shape: &[usize],
        along: &[usize],
    ) -> Result<(Tensor, [usize; 2])> {
        let kept = (0..shape.len()).filter(|axis| !along.contains(axis));
        let order: Vec<usize> = kept.chain(along.iter().copied()).collect();
        let columns: usize = along.iter().map(|axis| shape[*axis]).product();
        let sizes = [self.len(x) / columns, columns];
        if order.iter().copied().eq(0..shape.len()) {
            return Ok((x, sizes));
        }
        let result: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
        let (from, to) = (strides(shape), strides(&result));
        let axes = order.iter().zip(to);
        let axes = axes.map(|(axis, y)| Axis { size: shape[*axis], x: from[*axis], y }).collect();
        let turned = self.tensor(op, &result, Element::F32);
        self.record_move(op, x, turned, &Move { axes, x: 0, y: 0 }, 0)?;
        Ok((turned, sizes))
    }

    /// Sum, maximum or mean over some axes, which the result lacks; over all of them it is `[1]`. A
    /// maximum's gradient goes to the first element that attains it.
    ///
    /// # Errors
    /// [`Error::Shape`] for an axis that isn't there or is named twice, or none at all; as
    /// [`Graph::permute`].
    pub fn reduce(&mut self, x: Tensor, axes: &[usize], kind: Reduction) -> Result<Tensor> {
        self.check_floats("reduce", x)?;
        let shape = self.shape(x).to_vec();
        let twice = (1..axes.len()).any(|at| axes[..at].contains(&axes[at]));
        if axes.is_empty() || twice || axes.iter().any(|axis| *axis >= shape.len()) {
            return Err(Error::shape("reduce", format!("axes {axes:?} of {shape:?}")));
        }
        let mut along = axes.to_vec();
        along.sort_unstable();
        let kept: Vec<usize> = (0..shape.len()).filter(|axis| !along.contains(axis)).collect();
        let order: Vec<usize> = kept.iter().chain(&along).copied().collect();
        let turned = match order.iter().copied().eq(0..shape.len()) {
            true => x,
            false => self.permute(x, &order)?,
        };
        let mut rows: Vec<usize> = kept.iter().map(|axis| shape[*axis]).collect();
        if rows.is_empty() {
            rows.push(1);
        }
        let columns = along.iter().map(|axis| shape[*axis]).product();
        let matrix = self.reshape(turned, &[&rows[..], &[columns]].concat())?;
        self.reduce_rows(matrix, kind)
    }

    /// `a` where words of a condition are not 0, `b` where they are. All have one shape; the gradient
    /// of what wasn't chosen is zero.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, or the condition holds no words.
    pub fn select(&mut self, condition: Tensor, a: Tensor, b: Tensor) -> Result<Tensor> {
        self.check_words("select", condition)?;
        self.check_floats("select", a)?;
        self.check_floats("select", b)?;
        let shape = self.shape(a).to_vec();
        if self.shape(condition) != shape || self.shape(b) != shape {
            let (condition, b) = (self.shape(condition), self.shape(b));
            let what = format!("condition {condition:?}, {shape:?} and {b:?}, expected one shape");
            return Err(Error::shape("select", what));
        }
        let y = self.tensor("select", &shape, Element::F32);
        let n = self.len(y) as u32;
        let args = [condition, a, b, y].map(Into::into);
        self.dispatch(&WHERE_FORWARD, &WhereForward { n }, &args);
        self.on_backward(&[a, b], &[], &[y], move |g| {
            let Some(dy) = g.gradient(y) else { return Ok(()) };
            for (x, side) in [(a, 1), (b, 0)] {
                if let Some((dx, accumulate)) = g.target(x) {
                    let params = WhereBackward { n, side, accumulate };
                    let args = [condition, dy, dx].map(Into::into);
                    g.dispatch(&WHERE_BACKWARD, &params, &args);
                }
            }
            Ok(())
        });
        Ok(y)
    }
}

/// The shape that two shapes are broadcast to, if they are.
pub(in crate::ops) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let axes = a.len().max(b.len());
    let size = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(axes).map_or(1, |at| shape[at])
    };
    let join = |axis| match (size(a, axis), size(b, axis)) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    };
    (0..axes).map(join).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let dense = |shape: &[usize]| strides(shape);
    let all = |sizes: &[usize], x: &[isize], y: &[isize]| {
        let axes = sizes.iter().zip(x.iter().zip(y));
        axes.map(|(size, (x, y))| Axis { size: *size, x: *x, y: *y }).collect::<Vec<_>>()
    };
    // What is moved, and how many elements of x and y a replica has.
    let turned =
        Move { axes: all(&[3, 5, 2, 7], &[14, 42, 7, 1], &dense(&[3, 5, 2, 7])), x: 0, y: 0 };
    let columns = Move { axes: all(&[70, 33], &[1, 70], &dense(&[70, 33])), x: 0, y: 0 };
    let backward = Move { axes: all(&[4, 9, 3], &[27, -3, 1], &dense(&[4, 9, 3])), x: 24, y: 0 };
    let repeated = Move { axes: all(&[6, 5, 40], &[0, 1, 0], &dense(&[6, 5, 40])), x: 0, y: 0 };
    let padded = Move { axes: all(&[3, 10, 8], &dense(&[3, 10, 8]), &[120, 8, 1]), x: 0, y: 24 };
    let one = Move { axes: Vec::new(), x: 0, y: 0 };
    let wide = Move { axes: all(&[2, 1500], &[1, 2], &dense(&[2, 1500])), x: 0, y: 0 };
    for (name, moved, sizes, replicas) in [
        ("turned", &turned, [210, 210], 2),
        ("columns", &columns, [2310, 2310], 1),
        ("backward", &backward, [108, 108], 3),
        ("repeated", &repeated, [5, 1200], 2),
        ("padded", &padded, [240, 361], 2),
        ("cut", &padded.back(), [361, 240], 2),
        ("turned back", &turned.back(), [211, 210], 2),
        ("one", &one, [1, 1], 3),
        ("wide", &wide, [3000, 3001], 1),
    ] {
        for accumulate in [0, 1] {
            let Ok(params) = moved.params("case", sizes, accumulate) else { continue };
            let [x, y] = sizes.map(|n| n * replicas);
            let buffers = vec![noise(x, 2.0, 1), noise(y, 2.0, 2)];
            let label = format!("{name} accumulate {accumulate}");
            cases.push(Case::new(&STRIDED_COPY, label, &params, replicas, buffers));
        }
    }
    for (n, replicas) in [(1usize, 1), (7, 3), (1000, 2)] {
        let all = n * replicas;
        let condition = Data::U32((0..all as u32).map(|i| i * 7 % 3 % 2 * (i + 1)).collect());
        let [a, b, y] = [1, 2, 3].map(|key| noise(all, 2.0, key));
        let (size, n) = (format!("{n}"), n as u32);
        let buffers = vec![condition.clone(), a.clone(), b, y.clone()];
        cases.push(Case::new(&WHERE_FORWARD, &size, &WhereForward { n }, replicas, buffers));
        for (side, accumulate) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let label = format!("{size} side {side} accumulate {accumulate}");
            let params = WhereBackward { n, side, accumulate };
            let buffers = vec![condition.clone(), a.clone(), y.clone()];
            cases.push(Case::new(&WHERE_BACKWARD, label, &params, replicas, buffers));
        }
    }
    cases
}

#[cfg(test)]
mod tests;
