//! Pooling, definitions as in PyTorch's `max_pool2d` and `avg_pool2d`.
//!
//! ```rust
//! use tern_shaders::kernels::convolution::pooling::{Pool, max_pool_forward};
//!
//! // A plane of 2 × 4 in two windows of 2 × 2.
//! let p = Pool {
//!     planes: 1, height: 2, width: 4,
//!     kernel_h: 2, kernel_w: 2, stride_h: 2, stride_w: 2,
//!     ..Default::default()
//! };
//! let p = p.complete().expect("the window fits");
//! let x = [1.0f32, 5.0, 3.0, 2.0, 0.0, 4.0, 9.0, 8.0];
//! let (mut y, mut index) = ([0.0; 2], [0; 2]);
//! max_pool_forward(&p, 1, &x, &mut y, &mut index);
//! // The largest of each window, and where in the plane they are.
//! assert_eq!((y, index), ([5.0, 9.0], [1, 6]));
//! ```

use super::{places, product, under};
use crate::{Real, Variant, kernel, linear_grid, params};

params!(
    /// Parameters of the pooling kernels.
    Pool {
        /// Images times channels a replica.
        planes: u32,
        /// Rows of an input plane.
        height: u32,
        /// Columns of an input plane.
        width: u32,
        /// Rows of a window.
        kernel_h: u32,
        /// Columns of a window.
        kernel_w: u32,
        /// Input rows from one window to the next.
        stride_h: u32,
        /// Input columns from one window to the next.
        stride_w: u32,
        /// Rows of padding above and below, fewer than the window has.
        padding_h: u32,
        /// Columns of padding left and right, fewer than the window has.
        padding_w: u32,
        /// Rows of an output plane.
        out_h: u32,
        /// Columns of an output plane.
        out_w: u32,
        /// 1 adds the gradient to its destination, 0 overwrites it.
        accumulate: u32,
    }
);

impl Pool {
    /// Sets the output size, or gives `None` if the window doesn't fit.
    pub fn complete(mut self) -> Option<Self> {
        self.out_h = places(self.height, self.kernel_h, self.stride_h, self.padding_h)?;
        self.out_w = places(self.width, self.kernel_w, self.stride_w, self.padding_w)?;
        Some(self)
    }
}

/// Calls `f(y, x, place)` for each pixel under each window: indices into all replicas' output
/// and input, and the pixel's place in its plane.
fn each_pixel(p: &Pool, replicas: usize, mut f: impl FnMut(usize, usize, usize)) {
    for plane in 0..replicas * p.planes as usize {
        for (oh, ow) in product(p.out_h as usize, p.out_w as usize) {
            let y = (plane * p.out_h as usize + oh) * p.out_w as usize + ow;
            for (i, j) in product(p.kernel_h as usize, p.kernel_w as usize) {
                let row = under(oh, i, p.stride_h, p.padding_h, p.height);
                let column = under(ow, j, p.stride_w, p.padding_w, p.width);
                if let (Some(row), Some(column)) = (row, column) {
                    let place = row * p.width as usize + column;
                    f(y, plane * (p.height * p.width) as usize + place, place);
                }
            }
        }
    }
}

/// y = the largest pixel of each window, index = its place in the plane, the first of equals.
/// Shapes: `x` `[R, planes, height, width]`, `y`, `index` `[R, planes, out_h, out_w]`.
pub fn max_pool_forward<F: Real>(
    p: &Pool,
    replicas: usize,
    x: &[F],
    y: &mut [F],
    index: &mut [u32],
) {
    let mut window = None;
    each_pixel(p, replicas, |at, from, place| {
        let first_nan = x[from].is_nan() && window == Some(at) && !y[at].is_nan();
        if window != Some(at) || x[from] > y[at] || first_nan {
            window = Some(at);
            y[at] = x[from];
            index[at] = place as u32;
        }
    });
}

/// dx (+)= dy of the windows that each pixel won; a window is won by one of its pixels. Shapes:
/// `dy`, `index` `[R, planes, out_h, out_w]`, `dx` `[R, planes, height, width]`.
pub fn max_pool_backward<F: Real>(
    p: &Pool,
    replicas: usize,
    dy: &[F],
    index: &[u32],
    dx: &mut [F],
) {
    if p.accumulate == 0 {
        dx[..replicas * (p.planes * p.height * p.width) as usize].fill(F::zero());
    }
    each_pixel(p, replicas, |at, to, place| {
        if index[at] as usize == place {
            dx[to] += dy[at];
        }
    });
}

/// y = the mean of each window, padding counted as zeros (`count_include_pad`). Shapes: `x`
/// `[R, planes, height, width]`, `y` `[R, planes, out_h, out_w]`.
pub fn average_pool_forward<F: Real>(p: &Pool, replicas: usize, x: &[F], y: &mut [F]) {
    let area = F::count((p.kernel_h * p.kernel_w) as usize);
    y[..replicas * (p.planes * p.out_h * p.out_w) as usize].fill(F::zero());
    each_pixel(p, replicas, |at, from, _| y[at] += x[from] / area);
}

/// dx (+)= dy / area of the windows that hold each pixel. Shapes: `dy`
/// `[R, planes, out_h, out_w]`, `dx` `[R, planes, height, width]`.
pub fn average_pool_backward<F: Real>(p: &Pool, replicas: usize, dy: &[F], dx: &mut [F]) {
    let area = F::count((p.kernel_h * p.kernel_w) as usize);
    if p.accumulate == 0 {
        dx[..replicas * (p.planes * p.height * p.width) as usize].fill(F::zero());
    }
    each_pixel(p, replicas, |at, to, _| dx[to] += dy[at] / area);
}

/// Iterations of the loops over a window.
fn window(p: &Pool, _: &Variant) -> u64 {
    u64::from(p.kernel_h) * (1 + u64::from(p.kernel_w))
}

/// Iterations of the loops over the windows that hold a pixel.
fn windows(p: &Pool, _: &Variant) -> u64 {
    let [rows, columns] = [(p.kernel_h, p.stride_h), (p.kernel_w, p.stride_w)]
        .map(|(kernel, stride)| u64::from(kernel.div_ceil(stride)));
    rows * (1 + columns)
}

fn output_grid(p: &Pool, v: &Variant) -> [u32; 2] {
    linear_grid((p.planes * p.out_h * p.out_w) as usize, v.constant("GROUP"))
}

fn input_grid(p: &Pool, v: &Variant) -> [u32; 2] {
    linear_grid((p.planes * p.height * p.width) as usize, v.constant("GROUP"))
}

kernel! {
    /// Max pooling.
    MAX_POOL_FORWARD = "convolution/max_pool_forward", Pool;
    bindings: [x: read f32, y: write f32, index: write u32];
    reference: max_pool_forward;
    variants: [{
        name: "plain",
        source: "convolution/max_pool_forward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: window,
        grid: output_grid,
    }];
}

kernel! {
    /// Gradient of max pooling.
    MAX_POOL_BACKWARD = "convolution/max_pool_backward", Pool;
    bindings: [dy: read f32, index: read u32, dx: write f32];
    reference: max_pool_backward;
    variants: [{
        name: "plain",
        source: "convolution/max_pool_backward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: windows,
        grid: input_grid,
    }];
}

kernel! {
    /// Average pooling.
    AVERAGE_POOL_FORWARD = "convolution/average_pool_forward", Pool;
    bindings: [x: read f32, y: write f32];
    reference: average_pool_forward;
    variants: [{
        name: "plain",
        source: "convolution/average_pool_forward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: window,
        grid: output_grid,
    }];
}

kernel! {
    /// Gradient of average pooling.
    AVERAGE_POOL_BACKWARD = "convolution/average_pool_backward", Pool;
    bindings: [dy: read f32, dx: write f32];
    reference: average_pool_backward;
    variants: [{
        name: "plain",
        source: "convolution/average_pool_backward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: windows,
        grid: input_grid,
    }];
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_slope, noise};
    use super::*;

    fn pool() -> Pool {
        Pool {
            planes: 3,
            height: 5,
            width: 6,
            kernel_h: 3,
            kernel_w: 2,
            stride_h: 2,
            stride_w: 1,
            padding_h: 1,
            padding_w: 1,
            ..Default::default()
        }
        .complete()
        .unwrap()
    }

    #[test]
    fn a_known_pooling() {
        let p = Pool { planes: 1, height: 2, width: 4, padding_h: 0, kernel_h: 2, ..pool() };
        let p = Pool { stride_w: 2, ..p }.complete().unwrap();
        let x = [-1.0, -5.0, 3.0, 3.0, -2.0, -4.0, 0.0, -9.0];
        let (mut y, mut index) = ([0.0; 3], [9; 3]);
        max_pool_forward(&p, 1, &x, &mut y, &mut index);
        // Padding never wins; the first of equals does.
        assert_eq!((y, index), ([-1.0, 3.0, 3.0], [0, 2, 3]));
        average_pool_forward(&p, 1, &x, &mut y);
        assert_eq!(y, [-0.75, -1.5, -1.5]);
    }

    #[test]
    fn pooling_gradients_are_slopes_of_the_forward() {
        let (p, replicas) = (pool(), 2);
        let input = replicas * (p.planes * p.height * p.width) as usize;
        let output = replicas * (p.planes * p.out_h * p.out_w) as usize;
        let x = noise(input, 4);
        let k = noise(output, 5);

        let mut dx = vec![9.0; input];
        average_pool_backward(&p, replicas, &k, &mut dx);
        check_slope(&x, &dx, |x| {
            let mut y = vec![0.0; output];
            average_pool_forward(&p, replicas, x, &mut y);
            y.iter().zip(&k).map(|(y, k)| y * k).sum()
        });

        let (mut y, mut index) = (vec![0.0; output], vec![0; output]);
        max_pool_forward(&p, replicas, &x, &mut y, &mut index);
        max_pool_backward(&p, replicas, &k, &index, &mut dx);
        // Small enough a step that no window changes its winner.
        for i in 0..input {
            let loss = |delta: f64| {
                let mut x = x.clone();
                x[i] += delta;
                let (mut y, mut index) = (vec![0.0; output], vec![0; output]);
                max_pool_forward(&p, replicas, &x, &mut y, &mut index);
                y.iter().zip(&k).map(|(y, k)| y * k).sum::<f64>()
            };
            let slope = (loss(1e-7) - loss(-1e-7)) / 2e-7;
            assert!((dx[i] - slope).abs() < 1e-6, "at {i}: {} and {slope}", dx[i]);
        }

        let once = dx.clone();
        let p = Pool { accumulate: 1, ..p };
        max_pool_backward(&p, replicas, &k, &index, &mut dx);
        for (twice, once) in dx.iter().zip(&once) {
            assert!((twice - 2.0 * once).abs() < 1e-12);
        }
    }
}
