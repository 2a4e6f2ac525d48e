//! Convolutions as matrix products: what each tap of a filter sees becomes a row, a pixel of the output a
//! column (im2col; Chellapilla, Puri and Simard 2006), and the filters multiply that matrix. All channels are
//! of one group.
//!
//! ```rust
//! use tern_shaders::kernels::convolution::Convolution;
//! use tern_shaders::kernels::convolution::columns::unfold;
//!
//! // An image of 1 × 3 under a filter of two taps.
//! let p = Convolution {
//!     batch: 1, channels: 1, height: 1, width: 3,
//!     filters: 1, kernel_h: 1, kernel_w: 2, stride_h: 1, stride_w: 1,
//!     ..Default::default()
//! };
//! let p = p.complete().expect("the filter fits").part(0, 1);
//! let mut columns = [0.0f32; 4];
//! unfold(&p, 1, &[1.0, 2.0, 3.0], &mut columns);
//! assert_eq!(columns, [1.0, 2.0, 2.0, 3.0]);
//! ```

use super::{Convolution, product, sizes};
use crate::{Real, kernel, linear_grid};

impl Convolution {
    /// Pixels of an output plane.
    fn plane(&self) -> usize {
        self.out_h as usize * self.out_w as usize
    }

    /// Calls `f(column, x)` for each place of the columns, with what it sees of the input, `None` in the
    /// padding: indices into those of one replica.
    fn each_place(&self, mut f: impl FnMut(usize, Option<usize>)) {
        let (kernel_h, kernel_w) = (self.kernel_h as usize, self.kernel_w as usize);
        let (out_h, out_w) = (self.out_h as usize, self.out_w as usize);
        let (taps, pixels) = (self.taps() as usize, self.images as usize * self.plane());
        let size = sizes(self).0 / self.batch as usize;
        let mut number = 0;
        for c in 0..self.channels as usize {
            for (i, j) in product(kernel_h, kernel_w) {
                for b in 0..self.images as usize {
                    let image = (self.first as usize + b) * size;
                    for (oh, ow) in product(out_h, out_w) {
                        let row = |ih| (c * self.height as usize + ih) * self.width as usize;
                        let column = match self.by_pixel {
                            0 => number,
                            _ => number % pixels * taps + number / pixels,
                        };
                        let seen = self.under([oh, ow], [i, j]);
                        f(column, seen.map(|(ih, iw)| image + row(ih) + iw));
                        number += 1;
                    }
                }
            }
        }
    }

    /// Words of a replica's columns.
    fn words(&self) -> usize {
        self.taps() as usize * self.images as usize * self.plane()
    }
}

/// `columns[c, i, j, b] = x[b, c]` as the tap sees it, 0 in the padding. Shapes: `x`
/// `[R, batch, channels, height, width]`, `columns`
/// `[R, channels, kernel_h, kernel_w, images, out_h, out_w]`, or with the last three axes before the others.
pub fn unfold<F: Real>(p: &Convolution, replicas: usize, x: &[F], columns: &mut [F]) {
    for r in 0..replicas {
        let x = &x[r * sizes(p).0..];
        let columns = &mut columns[r * p.words()..][..p.words()];
        p.each_place(|at, seen| columns[at] = seen.map_or(F::zero(), |seen| x[seen]));
    }
}

/// dx (+)= sums of the columns that saw each pixel of the images. Shapes: `columns`
/// `[R, channels, kernel_h, kernel_w, images, out_h, out_w]`, or with the last three axes before the others,
/// `dx` `[R, batch, channels, height, width]`.
pub fn fold<F: Real>(p: &Convolution, replicas: usize, columns: &[F], dx: &mut [F]) {
    for r in 0..replicas {
        let dx = &mut dx[r * sizes(p).0..];
        if p.accumulate == 0 {
            let size = sizes(p).0 / p.batch as usize;
            dx[p.first as usize * size..][..p.images as usize * size].fill(F::zero());
        }
        let columns = &columns[r * p.words()..];
        p.each_place(|at, seen| {
            if let Some(seen) = seen {
                dx[seen] += columns[at];
            }
        });
    }
}

/// `y[b, f] = product[f, b] + bias[f]` for the images. Shapes: `product`
/// `[R, filters, images, out_h, out_w]`, or with the filters last, `parameters` `[R, parameter_stride]` with
/// bias `[filters]`, `y` `[R, batch, filters, out_h, out_w]`.
pub fn place<F: Real>(
    p: &Convolution,
    replicas: usize,
    product: &[F],
    parameters: &[F],
    y: &mut [F],
) {
    let (filters, images, plane) = (p.filters as usize, p.images as usize, p.plane());
    for r in 0..replicas {
        for f in 0..filters {
            let bias = match p.bias {
                0 => F::zero(),
                _ => parameters[r * p.parameter_stride as usize + p.bias_offset as usize + f],
            };
            for b in 0..images {
                let image = r * p.batch as usize + p.first as usize + b;
                let to = &mut y[(image * filters + f) * plane..][..plane];
                for (at, y) in to.iter_mut().enumerate() {
                    let (pixel, pixels) = (b * plane + at, images * plane);
                    let from = match p.by_pixel {
                        0 => f * pixels + pixel,
                        _ => pixel * filters + f,
                    };
                    *y = product[r * filters * pixels + from] + bias;
                }
            }
        }
    }
}

/// Workgroups of a kernel whose invocations take 4 pixels of a plane each.
fn grid(pixels: u32, planes: u32, group: u32) -> [u32; 2] {
    linear_grid(pixels.div_ceil(4 * group) as usize * planes as usize, 1)
}

kernel! {
    /// What the taps of a filter see.
    UNFOLD = "convolution/unfold", Convolution;
    bindings: [x: read f32, columns: write f32];
    reference: unfold;
    variants: [{
        name: "by_4",
        source: "convolution/unfold.wgsl",
        preludes: [CONVOLUTION_PARAMS, PIXELS],
        consts: [GROUP = 64],
        fits: |p| p.groups == 1,
        iterations: |p, _| p.walk(0),
        grid: |p, v| grid(p.images * p.out_h * p.out_w, p.channels, v.constant("GROUP")),
    }];
}

kernel! {
    /// The gradient of what the taps saw.
    FOLD = "convolution/fold", Convolution;
    bindings: [columns: read f32, dx: write f32];
    reference: fold;
    variants: [{
        name: "by_4",
        source: "convolution/fold.wgsl",
        preludes: [CONVOLUTION_PARAMS, PIXELS, SEEN],
        consts: [GROUP = 64],
        fits: |p| p.groups == 1,
        iterations: |p, _| p.walk(0),
        grid: |p, v| grid(p.images * p.height * p.width, p.channels, v.constant("GROUP")),
    }];
}

kernel! {
    /// Planes of a product to their images.
    PLACE = "convolution/place", Convolution;
    bindings: [product: read f32, parameters: read f32, y: write f32];
    reference: place;
    variants: [{
        name: "by_4",
        source: "convolution/place.wgsl",
        preludes: [CONVOLUTION_PARAMS],
        consts: [GROUP = 64],
        grid: |p, v| grid(p.images * p.out_h * p.out_w, p.filters, v.constant("GROUP")),
    }];
}
