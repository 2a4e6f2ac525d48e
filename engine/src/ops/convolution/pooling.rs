//! Max and average pooling.

use tern_shaders::Element;
use tern_shaders::kernels::convolution::pooling::{
    AVERAGE_POOL_BACKWARD, AVERAGE_POOL_FORWARD, MAX_POOL_BACKWARD, MAX_POOL_FORWARD, Pool,
    max_pool_forward,
};

use super::cases::noise;
use super::{MAX_TRIPS, Window, images, words};
use crate::ops::Case;
use crate::{Data, Error, Graph, Result, Tensor};

fn pool(
    graph: &Graph,
    op: &'static str,
    x: Tensor,
    kernel: [usize; 2],
    window: Window,
) -> Result<Pool> {
    let shape = images(graph, op, x)?;
    let fault =
        |what: &str| Error::shape(op, format!("{shape:?} under {kernel:?}, {window:?}: {what}"));
    let [planes, height, width] = words(op, [shape[0] * shape[1], shape[2], shape[3]])?;
    let [kernel_h, kernel_w] = words(op, kernel)?;
    let [stride_h, stride_w, padding_h, padding_w] =
        words(op, [window.stride[0], window.stride[1], window.padding[0], window.padding[1]])?;
    if u64::from(kernel_h) * (1 + u64::from(kernel_w)) > MAX_TRIPS {
        return Err(fault("too large a window for one sum"));
    }
    let sizes = Pool {
        planes,
        height,
        width,
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        padding_h,
        padding_w,
        ..Pool::default()
    };
    sizes.complete().ok_or_else(|| fault("the window doesn't fit"))
}

fn pooled(graph: &Graph, x: Tensor, p: &Pool) -> [usize; 4] {
    let shape = graph.shape(x);
    [shape[0], shape[1], p.out_h as usize, p.out_w as usize]
}

impl Graph {
    /// The largest pixel of each window, as `torch.nn.functional.max_pool2d`: `x`
    /// `[batch, channels, height, width]` to `[batch, channels, out_h, out_w]`. The gradient
    /// goes to the first of equals.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has other than four dimensions or the window doesn't fit.
    pub fn max_pool2d(&mut self, x: Tensor, kernel: [usize; 2], window: Window) -> Result<Tensor> {
        let p = pool(self, "max_pool2d", x, kernel, window)?;
        let shape = pooled(self, x, &p);
        let y = self.tensor("max pool", &shape, Element::F32);
        let index = self.tensor("max pool winners", &shape, Element::U32);
        self.dispatch(&MAX_POOL_FORWARD, &p, &[x.into(), y.into(), index.into()]);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                let args = [dy.into(), index.into(), dx.into()];
                b.dispatch(&MAX_POOL_BACKWARD, &Pool { accumulate, ..p }, &args);
            }
            Ok(())
        });
        Ok(y)
    }

    /// The mean of each window, padding counted as zeros, as `torch.nn.functional.avg_pool2d`:
    /// `x` `[batch, channels, height, width]` to `[batch, channels, out_h, out_w]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has other than four dimensions or the window doesn't fit.
    pub fn average_pool2d(
        &mut self,
        x: Tensor,
        kernel: [usize; 2],
        window: Window,
    ) -> Result<Tensor> {
        let p = pool(self, "average_pool2d", x, kernel, window)?;
        let shape = pooled(self, x, &p);
        let y = self.tensor("average pool", &shape, Element::F32);
        self.dispatch(&AVERAGE_POOL_FORWARD, &p, &[x.into(), y.into()]);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                let args = [dy.into(), dx.into()];
                b.dispatch(&AVERAGE_POOL_BACKWARD, &Pool { accumulate, ..p }, &args);
            }
            Ok(())
        });
        Ok(y)
    }
}

/// [planes, height, width, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w] and
/// replicas.
const POOLS: &[([u32; 9], u32)] = &[
    ([1, 1, 1, 1, 1, 1, 1, 0, 0], 1),
    ([3, 5, 6, 3, 2, 2, 1, 1, 1], 2),
    ([5, 7, 9, 3, 4, 1, 1, 2, 3], 1),
    ([4, 8, 8, 2, 2, 2, 2, 0, 0], 3),
    ([2, 9, 8, 2, 3, 4, 5, 0, 1], 1),
    ([2, 7, 7, 7, 7, 1, 1, 0, 0], 2),
];

fn pool_cases(cases: &mut Vec<Case>, sizes: [u32; 9], replicas: u32) {
    let [planes, height, width, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w] =
        sizes;
    let base = Pool {
        planes,
        height,
        width,
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        padding_h,
        padding_w,
        ..Pool::default()
    };
    let Some(p) = base.complete() else { return };
    let input = replicas * planes * height * width;
    let output = replicas * planes * p.out_h * p.out_w;
    let label = format!("{sizes:?}");
    let (x, y, dy) = (noise(input, 1), noise(output, 2), noise(output, 3));
    let replicas = replicas as usize;
    // A window is won by one of its pixels: which, depends on other numbers than `x`.
    let (Data::F32(other), Data::F32(mut most)) = (noise(input, 4), y.clone()) else { return };
    let mut won = vec![0; output as usize];
    max_pool_forward(&p, replicas, &other, &mut most, &mut won);
    let index = Data::U32(won);
    let mut add = |kernel, label: &str, p: &Pool, buffers| {
        cases.push(Case::new(kernel, label, p, replicas, buffers));
    };
    add(&MAX_POOL_FORWARD, &label, &p, vec![x.clone(), y.clone(), index.clone()]);
    add(&AVERAGE_POOL_FORWARD, &label, &p, vec![x.clone(), y]);
    for accumulate in [0, 1] {
        let label = format!("{label} accumulate {accumulate}");
        let p = Pool { accumulate, ..p };
        add(&MAX_POOL_BACKWARD, &label, &p, vec![dy.clone(), index.clone(), x.clone()]);
        add(&AVERAGE_POOL_BACKWARD, &label, &p, vec![dy.clone(), x.clone()]);
    }
}

/// Cases of pooling.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (sizes, replicas) in POOLS {
        pool_cases(&mut cases, *sizes, *replicas);
    }
    cases
}
