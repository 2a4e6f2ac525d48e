//! Ops that move or scale: scale, gradient reversal, swap of axes, concatenation, slices.

use std::ops::Range;

use tern_shaders::Element;
use tern_shaders::kernels::pointwise::{
    COPY, Copy, FILL, Fill, SCALE, SCALE_BY, Scale, ScaleBy, TRANSPOSE, Transpose,
};

use crate::ops::{Case, noise};
use crate::{Error, Graph, Result, Tensor};

impl Graph {
    /// factor · x
    pub fn scale(&mut self, x: Tensor, factor: f32) -> Tensor {
        self.scaled("scale", x, factor, factor)
    }

    /// x forward; −λ · dy backward (Ganin and Lempitsky 2015): what comes before is trained
    /// to worsen what comes after.
    pub fn gradient_reversal(&mut self, x: Tensor, lambda: f32) -> Tensor {
        self.scaled("gradient_reversal", x, 1.0, -lambda)
    }

    fn scaled(&mut self, label: &str, x: Tensor, forward: f32, backward: f32) -> Tensor {
        let (n, shape) = (self.len(x) as u32, self.shape(x).to_vec());
        let y = self.tensor(label, &shape, Element::F32);
        let params = Scale { n, factor: forward, accumulate: 0 };
        self.dispatch(&SCALE, &params, &[x.into(), y.into()]);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                let params = Scale { n, factor: backward, accumulate };
                b.dispatch(&SCALE, &params, &[dy.into(), dx.into()]);
            }
            Ok(())
        });
        y
    }

    /// Overwrites `target` with x: how a step leaves a value for the next one. Outside of
    /// differentiation.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two don't have the same number of floats.
    pub fn copy_into(&mut self, x: Tensor, target: Tensor) -> Result<()> {
        self.check_floats("copy_into", x)?;
        self.check_floats("copy_into", target)?;
        if self.len(x) != self.len(target) {
            let what = format!("{:?} into {:?}", self.shape(x), self.shape(target));
            return Err(Error::shape("copy_into", what));
        }
        let params = Scale { n: self.len(x) as u32, factor: 1.0, accumulate: 0 };
        self.dispatch(&SCALE, &params, &[x.into(), target.into()]);
        Ok(())
    }

    /// factor · scalar · x with a scalar `[1]` that each replica has for itself and that is
    /// taken as a constant: it receives no gradient.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `scalar` is one number.
    pub fn scale_by(&mut self, x: Tensor, scalar: Tensor, factor: f32) -> Result<Tensor> {
        self.check_floats("scale_by", x)?;
        self.check_floats("scale_by", scalar)?;
        if self.len(scalar) != 1 {
            let what = format!("scalar {:?}, expected [1]", self.shape(scalar));
            return Err(Error::shape("scale_by", what));
        }
        let (n, shape) = (self.len(x) as u32, self.shape(x).to_vec());
        let y = self.tensor("scale_by", &shape, Element::F32);
        let params = ScaleBy { n, factor, accumulate: 0 };
        self.dispatch(&SCALE_BY, &params, &[x.into(), scalar.into(), y.into()]);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                let params = ScaleBy { n, factor, accumulate };
                b.dispatch(&SCALE_BY, &params, &[dy.into(), scalar.into(), dx.into()]);
            }
            Ok(())
        });
        Ok(y)
    }

    /// Swaps `axis` and the one after it.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are no such axes.
    pub fn transpose(&mut self, x: Tensor, axis: usize) -> Result<Tensor> {
        self.check_floats("transpose", x)?;
        let mut shape = self.shape(x).to_vec();
        let Some(&[a, b]) = shape.get(axis..axis + 2) else {
            return Err(Error::shape("transpose", format!("axis {axis} of {shape:?}")));
        };
        let (outer, inner) = around(&shape, axis);
        let inner = inner / b as u32;
        shape.swap(axis, axis + 1);
        let y = self.tensor("transpose", &shape, Element::F32);
        let (a, b) = (a as u32, b as u32);
        let params = Transpose { outer, a, b, inner, accumulate: 0 };
        self.dispatch(&TRANSPOSE, &params, &[x.into(), y.into()]);
        self.on_backward(&[x], &[], &[y], move |g| {
            if let (Some(dy), Some((dx, accumulate))) = (g.gradient(y), g.target(x)) {
                let params = Transpose { outer, a: b, b: a, inner, accumulate };
                g.dispatch(&TRANSPOSE, &params, &[dy.into(), dx.into()]);
            }
            Ok(())
        });
        Ok(y)
    }

    /// Joins tensors along an axis; their other axes are equal.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes don't go together or there is none.
    pub fn concat(&mut self, parts: &[Tensor], axis: usize) -> Result<Tensor> {
        let Some(first) = parts.first() else {
            return Err(Error::shape("concat", "no tensors"));
        };
        let mut shape = self.shape(*first).to_vec();
        if axis >= shape.len() {
            return Err(Error::shape("concat", format!("axis {axis} of {shape:?}")));
        }
        shape[axis] = 0;
        for part in parts {
            self.check_floats("concat", *part)?;
            let its = self.shape(*part);
            let fits =
                its.len() == shape.len() && (0..its.len()).all(|i| i == axis || its[i] == shape[i]);
            if !fits {
                let shapes: Vec<_> = parts.iter().map(|part| self.shape(*part)).collect();
                return Err(Error::shape("concat", format!("{shapes:?} along axis {axis}")));
            }
            shape[axis] += its[axis];
        }
        let y = self.tensor("concat", &shape, Element::F32);
        let (rows, inner) = around(&shape, axis);
        let whole = Block { rows, width: shape[axis] as u32 * inner, offset: 0 };
        let mut offset = 0;
        let mut blocks = Vec::new();
        for part in parts {
            let width = self.shape(*part)[axis] as u32 * inner;
            blocks.push((*part, Block { rows, width, offset }));
            offset += width;
        }
        for (part, block) in &blocks {
            self.dispatch(&COPY, &block.paste_into(&whole), &[(*part).into(), y.into()]);
        }
        self.on_backward(parts, &[], &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            for (part, block) in &blocks {
                if let Some((d, accumulate)) = b.target(*part) {
                    let params = block.cut_from(&whole, accumulate);
                    b.dispatch(&COPY, &params, &[dy.into(), d.into()]);
                }
            }
            Ok(())
        });
        Ok(y)
    }

    /// The part of a tensor with `range` of an axis.
    ///
    /// # Errors
    /// [`Error::Shape`] if the range is empty or not within the axis.
    pub fn slice(&mut self, x: Tensor, axis: usize, range: Range<usize>) -> Result<Tensor> {
        self.check_floats("slice", x)?;
        let mut shape = self.shape(x).to_vec();
        if axis >= shape.len() || range.is_empty() || range.end > shape[axis] {
            return Err(Error::shape("slice", format!("{range:?} of axis {axis} of {shape:?}")));
        }
        let (rows, inner) = around(&shape, axis);
        let whole = Block { rows, width: shape[axis] as u32 * inner, offset: 0 };
        let (start, width) = (range.start as u32 * inner, range.len() as u32 * inner);
        let block = Block { rows, width, offset: start };
        shape[axis] = range.len();
        let y = self.tensor("slice", &shape, Element::F32);
        self.dispatch(&COPY, &block.cut_from(&whole, 0), &[x.into(), y.into()]);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                if accumulate == 0 {
                    // What is left out of the slice has no gradient from here.
                    let n = whole.rows * whole.width;
                    let params = Fill { n, offset: 0, stride: n, value: 0.0 };
                    b.dispatch(&FILL, &params, &[dx.into()]);
                }
                let params = Copy { accumulate: 1, ..block.paste_into(&whole) };
                b.dispatch(&COPY, &params, &[dy.into(), dx.into()]);
            }
            Ok(())
        });
        Ok(y)
    }
}

/// Products of the axes before and after one.
fn around(shape: &[usize], axis: usize) -> (u32, u32) {
    let product = |axes: &[usize]| axes.iter().product::<usize>() as u32;
    (product(&shape[..axis]), product(&shape[axis + 1..]))
}

/// Columns of a matrix: `width` of them from `offset` on.
struct Block {
    rows: u32,
    width: u32,
    offset: u32,
}

impl Block {
    /// The copy of this block's own tensor into its columns of the whole.
    fn paste_into(&self, whole: &Block) -> Copy {
        let &Block { rows, width, offset } = self;
        Copy {
            rows,
            width,
            x_offset: 0,
            x_row: width,
            x_stride: rows * width,
            y_offset: offset,
            y_row: whole.width,
            y_stride: rows * whole.width,
            accumulate: 0,
        }
    }

    /// The copy of the block's columns of the whole to a tensor of its own.
    fn cut_from(&self, whole: &Block, accumulate: u32) -> Copy {
        let there = self.paste_into(whole);
        Copy {
            x_offset: there.y_offset,
            x_row: there.y_row,
            x_stride: there.y_stride,
            y_offset: there.x_offset,
            y_row: there.x_row,
            y_stride: there.x_stride,
            accumulate,
            ..there
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, replicas) in [(1u32, 1usize), (77, 3), (70_000, 1)] {
        let all = n as usize * replicas;
        let (x, y) = (noise(all, 2.0, 1), noise(all, 1.0, 2));
        for accumulate in [0, 1] {
            let label = format!("{n} accumulate {accumulate}");
            let params = Scale { n, factor: -1.5, accumulate };
            let buffers = vec![x.clone(), y.clone()];
            cases.push(Case::new(&SCALE, &label, &params, replicas, buffers));
            let params = ScaleBy { n, factor: -1.5, accumulate };
            let buffers = vec![x.clone(), noise(replicas, 4.0, 3), y.clone()];
            cases.push(Case::new(&SCALE_BY, &label, &params, replicas, buffers));
        }
        let params = Fill { n, offset: 3, stride: n + 5, value: -0.5 };
        let buffers = vec![noise((n + 5) as usize * replicas, 1.0, 4)];
        cases.push(Case::new(&FILL, format!("{n}"), &params, replicas, buffers));
    }
    for (rows, width, outside, replicas) in
        [(1u32, 1u32, 0u32, 1usize), (5, 3, 4, 3), (100, 64, 1, 1), (70, 33, 0, 2), (9, 8, 5, 1)]
    {
        for accumulate in [0, 1] {
            let own = Block { rows, width, offset: outside };
            let whole = Block { rows, width: width + 2 * outside, offset: 0 };
            let small = noise((rows * width) as usize * replicas, 1.0, 1);
            let large = noise((rows * whole.width) as usize * replicas, 1.0, 2);
            let into = Copy { accumulate, ..own.paste_into(&whole) };
            let label = format!("{rows} x {width} into accumulate {accumulate}");
            let buffers = vec![small.clone(), large.clone()];
            cases.push(Case::new(&COPY, label, &into, replicas, buffers));
            let label = format!("{rows} x {width} out accumulate {accumulate}");
            let out = own.cut_from(&whole, accumulate);
            cases.push(Case::new(&COPY, label, &out, replicas, vec![large, small]));
        }
    }
    for (outer, a, b, inner, replicas) in [
        (1u32, 1, 1, 1, 1usize),
        (2, 3, 5, 7, 2),
        (1, 65, 130, 1, 1),
        (3, 3, 70, 1, 2),
        (2, 70, 3, 1, 1),
        (1, 5000, 3, 1, 2),
        (5, 16, 17, 2, 1),
        (1, 9, 70, 33, 1),
    ] {
        let n = (outer * a * b * inner) as usize * replicas;
        for accumulate in [0, 1] {
            let label = format!("{outer} x {a} x {b} x {inner} accumulate {accumulate}");
            let params = Transpose { outer, a, b, inner, accumulate };
            let buffers = vec![noise(n, 1.0, 1), noise(n, 1.0, 2)];
            cases.push(Case::new(&TRANSPOSE, label, &params, replicas, buffers));
        }
    }
    cases
}

#[cfg(test)]
mod tests;
