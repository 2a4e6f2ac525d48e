//! Two-dimensional convolution, channels before pixels (NCHW), layouts and definition as in
//! PyTorch's `conv2d`; pooling in [`pooling`].
//!
//! ```rust
//! use tern_shaders::kernels::convolution::{Convolution, forward};
//!
//! // An image of 3 × 3 under a filter of 2 × 2 ones: each output is the sum of a window.
//! let p = Convolution {
//!     batch: 1, channels: 1, height: 3, width: 3,
//!     filters: 1, kernel_h: 2, kernel_w: 2, stride_h: 1, stride_w: 1,
//!     parameter_stride: 4,
//!     ..Default::default()
//! };
//! let p = p.complete().expect("the filter fits");
//! assert_eq!((p.out_h, p.out_w), (2, 2));
//! let x = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
//! let mut y = [0.0; 4];
//! forward(&p, 1, &x, &[1.0; 4], &mut y);
//! assert_eq!(y, [12.0, 16.0, 24.0, 28.0]);
//! ```

pub mod columns;
pub mod pooling;

use crate::{AnyKernel, Real, kernel, linear_grid, params};

params!(
    /// Parameters of the convolution's kernels. [`Convolution::complete`] fills in what follows
    /// from the sizes.
    Convolution {
        /// Images a replica.
        batch: u32,
        /// Planes of an input image.
        channels: u32,
        /// Rows of an input plane.
        height: u32,
        /// Columns of an input plane.
        width: u32,
        /// Planes of an output image.
        filters: u32,
        /// Rows of a filter.
        kernel_h: u32,
        /// Columns of a filter.
        kernel_w: u32,
        /// Input rows from one output row to the next.
        stride_h: u32,
        /// Input columns from one output column to the next.
        stride_w: u32,
        /// Rows of zeros above and below, fewer than the filter spans.
        padding_h: u32,
        /// Columns of zeros left and right, fewer than the filter spans.
        padding_w: u32,
        /// Rows of an output plane.
        out_h: u32,
        /// Columns of an output plane.
        out_w: u32,
        /// First word of the weight in a replica's parameters.
        weight_offset: u32,
        /// First word of the bias, if there is one.
        bias_offset: u32,
        /// 1: there is a bias, of the filters or, in [`INPUT_BACKWARD`], of the channels; in the weight
        /// gradient: its gradient is wanted.
        bias: u32,
        /// Words of a replica's parameters.
        parameter_stride: u32,
        /// Parts that the weight gradient's sum over the pixels is split into.
        splits: u32,
        /// 1 adds a gradient to its destination, 0 overwrites it.
        accumulate: u32,
        /// First image of those whose [`columns`] are taken.
        first: u32,
        /// Images from there on; [`Convolution::part`] says which.
        images: u32,
        /// In [`columns`], 1: what all taps see of a pixel lies together, and what all filters give; 0:
        /// pixels do.
        by_pixel: u32,
        /// Input rows from one tap of a filter to the next; [`Convolution::complete`] makes 0 one.
        dilation_h: u32,
        /// Input columns from one tap of a filter to the next; [`Convolution::complete`] makes 0 one.
        dilation_w: u32,
        /// Groups: a filter sees the channels of its own; [`Convolution::complete`] makes 0 one.
        groups: u32,
    }
);

params!(
    /// Parameters of [`WEIGHT_FINISH`]. [`Convolution::weight_finish`] and
    /// [`Convolution::bias_finish`] make them.
    Finish {
        /// Parts that the sum over the pixels was split into.
        splits: u32,
        /// Rows of the partial sums.
        filters: u32,
        /// Columns of the partial sums.
        columns: u32,
        /// First column to add up.
        first: u32,
        /// Columns to add up.
        count: u32,
        /// First word of the gradient in a replica's vector.
        offset: u32,
        /// Words of a replica's vector.
        parameter_stride: u32,
        /// 1 adds to the gradient, 0 overwrites it.
        accumulate: u32,
    }
);

/// Places of a window of `kernel` on `size` pixels with `padding` on both sides, or `None`
/// where the window doesn't fit, the stride is 0 or the padding holds a whole window.
pub fn places(size: u32, kernel: u32, stride: u32, padding: u32) -> Option<u32> {
    if kernel == 0 || padding >= kernel {
        return None;
    }
    let room = (size + 2 * padding).checked_sub(kernel)?;
    Some(room.checked_div(stride)? + 1)
}

/// Pixels from the first tap of so many to the last, at a distance; `None` if there are too many.
fn span((taps, dilation): (u32, u32)) -> Option<u32> {
    match taps.checked_sub(1) {
        Some(gaps) => gaps.checked_mul(dilation)?.checked_add(1),
        None => Some(0),
    }
}

impl Convolution {
    /// Channels that a filter sees.
    pub fn depth(&self) -> u32 {
        self.channels / self.groups.max(1)
    }

    /// Weights of a filter.
    pub fn taps(&self) -> u32 {
        self.depth() * self.kernel_h * self.kernel_w
    }

    /// Iterations of the loops over a filter's places and, at each, over `planes`.
    fn walk(&self, planes: u32) -> u64 {
        let places = u64::from(self.kernel_h) * u64::from(self.kernel_w);
        u64::from(self.kernel_h) + places * (1 + u64::from(planes))
    }

    /// Sets the output size and the number of splits, or gives `None` if the filter doesn't fit, channels
    /// or filters aren't a multiple of the groups, or there are more than 2^32 pixels.
    pub fn complete(mut self) -> Option<Self> {
        for one in [&mut self.dilation_h, &mut self.dilation_w, &mut self.groups] {
            *one = (*one).max(1);
        }
        if [self.channels, self.filters].iter().any(|n| !n.is_multiple_of(self.groups)) {
            return None;
        }
        let [rows, columns] =
            [(self.kernel_h, self.dilation_h), (self.kernel_w, self.dilation_w)].map(span);
        self.out_h = places(self.height, rows?, self.stride_h, self.padding_h)?;
        self.out_w = places(self.width, columns?, self.stride_w, self.padding_w)?;
        let pixels = self.batch.checked_mul(self.out_h)?.checked_mul(self.out_w)?;
        // Enough invocations for a large device, each with at least 128 pixels to add and at
        // most 32,768; the partial sums stay below 2²¹ words unless that bound asks for more.
        let most = ((1 << 21) / (self.filters * self.taps())).clamp(1, 16_384);
        self.splits = pixels.div_ceil(128).min(most).max(pixels.div_ceil(32_768));
        Some(self)
    }

    /// The same with the weight gradient's sum split into fewer parts, of whole images if the batch has
    /// a divisor that is near: for processors, whose threads take a part each, where a GPU's invocations
    /// take a sum.
    pub fn by_images(self) -> Self {
        let most = self.splits.min(16);
        let parts = (most.div_ceil(2)..=most).rev().find(|parts| self.batch.is_multiple_of(*parts));
        Convolution { splits: parts.unwrap_or(most), ..self }
    }

    /// The same for the [`columns`] of some images.
    pub fn part(self, first: u32, images: u32) -> Self {
        Convolution { first, images, ..self }
    }

    /// Columns of the partial sums: the taps and the bias.
    pub fn columns(&self) -> u32 {
        self.taps() + self.bias
    }

    fn finish(&self, first: u32, count: u32, offset: u32, accumulate: u32) -> Finish {
        Finish {
            splits: self.splits,
            filters: self.filters,
            columns: self.columns(),
            first,
            count,
            offset,
            parameter_stride: self.parameter_stride,
            accumulate,
        }
    }

    /// Parameters that finish the weight's gradient.
    pub fn weight_finish(&self, accumulate: u32) -> Finish {
        self.finish(0, self.taps(), self.weight_offset, accumulate)
    }

    /// Parameters that finish the bias's gradient.
    pub fn bias_finish(&self, accumulate: u32) -> Finish {
        self.finish(self.taps(), 1, self.bias_offset, accumulate)
    }
}

/// Input place so far from the first of the window at `out`; `None` in the padding.
fn under(out: usize, far: usize, stride: u32, padding: u32, size: u32) -> Option<usize> {
    (out * stride as usize + far).checked_sub(padding as usize).filter(|i| *i < size as usize)
}

impl Convolution {
    /// Input row and column under tap `[i, j]` of the window at `out`; `None` in the padding.
    fn under(&self, [oh, ow]: [usize; 2], [i, j]: [usize; 2]) -> Option<(usize, usize)> {
        let [i, j] = [i * self.dilation_h as usize, j * self.dilation_w as usize];
        let row = under(oh, i, self.stride_h, self.padding_h, self.height)?;
        Some((row, under(ow, j, self.stride_w, self.padding_w, self.width)?))
    }
}

/// Calls `f(y, x, w)` for each product in a convolution: indices into one replica's output,
/// input and weight.
fn each_product(p: &Convolution, mut f: impl FnMut(usize, usize, usize)) {
    let (channels, filters) = (p.channels as usize, p.filters as usize);
    let (depth, of_group) = (p.depth() as usize, filters / p.groups as usize);
    let (kernel_h, kernel_w) = (p.kernel_h as usize, p.kernel_w as usize);
    let (out_h, out_w) = (p.out_h as usize, p.out_w as usize);
    for (b, o) in product(p.batch as usize, filters) {
        for (oh, ow) in product(out_h, out_w) {
            let y = ((b * filters + o) * out_h + oh) * out_w + ow;
            for c in 0..depth {
                for (i, j) in product(kernel_h, kernel_w) {
                    let Some((ih, iw)) = p.under([oh, ow], [i, j]) else { continue };
                    let plane = b * channels + o / of_group * depth + c;
                    let x = (plane * p.height as usize + ih) * p.width as usize + iw;
                    let w = ((o * depth + c) * kernel_h + i) * kernel_w + j;
                    f(y, x, w);
                }
            }
        }
    }
}

fn product(n: usize, m: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (0..m).map(move |j| (i, j)))
}

/// Words a replica of input and output.
fn sizes(p: &Convolution) -> (usize, usize) {
    let input = p.batch as usize * p.channels as usize * p.height as usize * p.width as usize;
    let output = p.batch as usize * p.filters as usize * p.out_h as usize * p.out_w as usize;
    (input, output)
}

/// `y[b, o] = bias[o] + Σ weight[o, c, i, j] · x[b, first + c]` under the tap, the first channel being that
/// of the filter's group. Shapes: `x` `[R, batch, channels, height, width]`, `parameters`
/// `[R, parameter_stride]` with weight `[filters, channels / groups, kernel_h, kernel_w]` and bias
/// `[filters]`, `y` `[R, batch, filters, out_h, out_w]`.
pub fn forward<F: Real>(p: &Convolution, replicas: usize, x: &[F], parameters: &[F], y: &mut [F]) {
    let (input, output) = sizes(p);
    let plane = (p.out_h * p.out_w) as usize;
    for r in 0..replicas {
        let parameters = &parameters[r * p.parameter_stride as usize..];
        let weight = &parameters[p.weight_offset as usize..];
        let (x, y) = (&x[r * input..], &mut y[r * output..(r + 1) * output]);
        for at in 0..output {
            let o = at / plane % p.filters as usize;
            y[at] = if p.bias != 0 { parameters[p.bias_offset as usize + o] } else { F::zero() };
        }
        each_product(p, |at, from, w| y[at] += weight[w] * x[from]);
    }
}

/// dx (+)= Σ weight · dy over the outputs that saw each pixel, and `bias[c]` where there is one, as of a
/// transposed convolution, whose forward pass this is. Shapes: `dy` `[R, batch, filters, out_h, out_w]`,
/// `parameters` `[R, parameter_stride]`, the bias `[channels]`, `dx` `[R, batch, channels, height, width]`.
pub fn input_backward<F: Real>(
    p: &Convolution,
    replicas: usize,
    dy: &[F],
    parameters: &[F],
    dx: &mut [F],
) {
    let (input, output) = sizes(p);
    for r in 0..replicas {
        let parameters = &parameters[r * p.parameter_stride as usize..];
        let weight = &parameters[p.weight_offset as usize..];
        let (dy, dx) = (&dy[r * output..], &mut dx[r * input..(r + 1) * input]);
        if p.accumulate == 0 {
            dx.fill(F::zero());
        }
        if p.bias != 0 {
            let bias = &parameters[p.bias_offset as usize..][..p.channels as usize];
            let planes = dx.chunks_exact_mut((p.height * p.width) as usize);
            for (plane, bias) in planes.zip(bias.iter().cycle()) {
                plane.iter_mut().for_each(|dx| *dx += *bias);
            }
        }
        each_product(p, |at, to, w| dx[to] += weight[w] * dy[at]);
    }
}

/// Sums of dy · x for each weight, and of dy for each bias, over each of `splits` parts of the
/// output pixels. Shapes: `x` `[R, batch, channels, height, width]`, `dy`
/// `[R, batch, filters, out_h, out_w]`, `partial` `[R, splits, filters, columns]`, the bias
/// being the last column.
pub fn weight_partial<F: Real>(
    p: &Convolution,
    replicas: usize,
    x: &[F],
    dy: &[F],
    partial: &mut [F],
) {
    let (input, output) = sizes(p);
    let (filters, columns) = (p.filters as usize, p.columns() as usize);
    let (plane, taps) = ((p.out_h * p.out_w) as usize, p.taps() as usize);
    let share = (p.batch as usize * plane).div_ceil(p.splits as usize);
    for r in 0..replicas {
        let (x, dy) = (&x[r * input..], &dy[r * output..]);
        let size = p.splits as usize * filters * columns;
        let partial = &mut partial[r * size..(r + 1) * size];
        partial.fill(F::zero());
        // The row of the partial sums to which an output pixel adds.
        let row = |at: usize| {
            let (b, o) = (at / plane / filters, at / plane % filters);
            ((b * plane + at % plane) / share * filters + o) * columns
        };
        each_product(p, |at, from, w| partial[row(at) + w % taps] += dy[at] * x[from]);
        if p.bias != 0 {
            for at in 0..output {
                partial[row(at) + taps] += dy[at];
            }
        }
    }
}

/// gradients (+)= Σ over the splits, of columns [first, first + count) of each filter. Shapes:
/// `partial` `[R, splits, filters, columns]`, `gradients` `[R, parameter_stride]` with
/// `[filters, count]` from `offset` on.
pub fn weight_finish<F: Real>(p: &Finish, replicas: usize, partial: &[F], gradients: &mut [F]) {
    let (splits, filters) = (p.splits as usize, p.filters as usize);
    for r in 0..replicas {
        let gradients = &mut gradients[r * p.parameter_stride as usize + p.offset as usize..];
        for (o, k) in product(filters, p.count as usize) {
            let column = p.first as usize + k;
            let sum = (0..splits)
                .map(|s| partial[((r * splits + s) * filters + o) * p.columns as usize + column])
                .sum::<F>();
            let to = &mut gradients[o * p.count as usize + k];
            *to = if p.accumulate != 0 { *to + sum } else { sum };
        }
    }
}

/// Workgroups of a kernel whose invocations compute some planes of 4 pixels each.
fn tile_grid(pixels: u32, planes: u32, each: u32, group: u32) -> [u32; 2] {
    linear_grid(pixels.div_ceil(4 * group) as usize * planes.div_ceil(each) as usize, 1)
}

kernel! {
    /// 2-D convolution.
    FORWARD = "convolution/forward", Convolution;
    bindings: [x: read f32, parameters: read f32, y: write f32];
    reference: forward;
    variants: [{
        name: "tile_8x4",
        source: "convolution/forward.wgsl",
        preludes: [CONVOLUTION_PARAMS, PIXELS],
        consts: [GROUP = 64],
        fits: |p| p.groups == 1,
        iterations: |p, _| p.walk(p.channels),
        grid: |p, v| tile_grid(p.batch * p.out_h * p.out_w, p.filters, 8, v.constant("GROUP")),
    }, {
        name: "grouped",
        source: "convolution/forward_grouped.wgsl",
        preludes: [CONVOLUTION_PARAMS, PIXELS],
        consts: [GROUP = 64],
        iterations: |p, _| p.walk(p.depth()),
        grid: |p, v| tile_grid(p.batch * p.out_h * p.out_w, p.filters, 1, v.constant("GROUP")),
    }];
}

kernel! {
    /// Input gradient of the 2-D convolution, and the transposed convolution.
    INPUT_BACKWARD = "convolution/input_backward", Convolution;
    bindings: [dy: read f32, parameters: read f32, dx: write f32];
    reference: input_backward;
    variants: [{
        name: "tile_8x4",
        source: "convolution/input_backward.wgsl",
        preludes: [CONVOLUTION_PARAMS, PIXELS, SEEN],
        consts: [GROUP = 64],
        fits: |p| p.groups == 1,
        iterations: |p, _| p.walk(p.filters),
        grid: |p, v| tile_grid(p.batch * p.height * p.width, p.channels, 8, v.constant("GROUP")),
    }, {
        name: "grouped",
        source: "convolution/input_backward_grouped.wgsl",
        preludes: [CONVOLUTION_PARAMS, PIXELS, SEEN],
        consts: [GROUP = 64],
        iterations: |p, _| p.walk(p.filters / p.groups.max(1)),
        grid: |p, v| tile_grid(p.batch * p.height * p.width, p.channels, 1, v.constant("GROUP")),
    }];
}

/// Workgroups of a weight gradient whose invocations compute some filters of 4 taps.
fn taps_grid(p: &Convolution, filters: u32, group: u32) -> [u32; 2] {
    let tiles = p.columns().div_ceil(4) as usize * p.filters.div_ceil(filters) as usize;
    linear_grid(tiles * p.splits as usize, group)
}

kernel! {
    /// Weight and bias gradient of the 2-D convolution, split over the pixels.
    WEIGHT_PARTIAL = "convolution/weight_partial", Convolution;
    bindings: [x: read f32, dy: read f32, partial: write f32];
    reference: weight_partial;
    variants: [{
        name: "tile_8x4",
        source: "convolution/weight_partial.wgsl",
        preludes: [CONVOLUTION_PARAMS, INDEX],
        consts: [GROUP = 64],
        fits: |p| p.groups == 1,
        iterations: |p, _| (p.batch * p.out_h * p.out_w).div_ceil(p.splits).into(),
        grid: |p, v| taps_grid(p, 8, v.constant("GROUP")),
    }, {
        name: "grouped",
        source: "convolution/weight_partial_grouped.wgsl",
        preludes: [CONVOLUTION_PARAMS, INDEX],
        consts: [GROUP = 64],
        iterations: |p, _| (p.batch * p.out_h * p.out_w).div_ceil(p.splits).into(),
        grid: |p, v| taps_grid(p, 1, v.constant("GROUP")),
    }];
}

kernel! {
    /// Weight and bias gradient of the 2-D convolution, the splits added up.
    WEIGHT_FINISH = "convolution/weight_finish", Finish;
    bindings: [partial: read f32, gradients: write f32];
    reference: weight_finish;
    variants: [{
        name: "plain",
        source: "convolution/weight_finish.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: |p, _| p.splits.into(),
        grid: |p, v| linear_grid((p.filters * p.count) as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[
    FORWARD.any(),
    INPUT_BACKWARD.any(),
    WEIGHT_PARTIAL.any(),
    WEIGHT_FINISH.any(),
    pooling::MAX_POOL_FORWARD.any(),
    pooling::MAX_POOL_BACKWARD.any(),
    pooling::AVERAGE_POOL_FORWARD.any(),
    pooling::AVERAGE_POOL_BACKWARD.any(),
    columns::UNFOLD.any(),
    columns::FOLD.any(),
    columns::PLACE.any(),
];

#[cfg(test)]
mod tests;
