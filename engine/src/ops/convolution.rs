//! 2-D convolution, NCHW: `y[b, o] = bias[o] + Σ weight[o, c] ⋆ x[b, c]`.
//!
//! ```rust
//! use tern_engine::ops::convolution::Window;
//! use tern_engine::{Arena, Data, Device, Element, Graph, Init, Parameters};
//!
//! # fn main() -> tern_engine::Result<()> {
//! // One filter of 2 × 2 ones: each output is the sum of a window.
//! let mut parameters = Parameters::new();
//! let weight = parameters.add("weight", &[1, 1, 2, 2], Init::Constant(1.0))?;
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let x = graph.input("x", &[1, 1, 3, 3], Element::F32);
//! let y = graph.conv2d(x, &weight, None, Window::default())?;
//! graph.keep(y);
//! let mut plan = graph.forward()?;
//! plan.write(x, &Data::F32((1..10).map(|i| i as f32).collect()))?;
//! plan.run(1)?;
//! assert_eq!(plan.read(y)?, Data::F32(vec![12.0, 16.0, 24.0, 28.0]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::Element;
use tern_shaders::kernels::convolution::{
    Convolution, FORWARD, INPUT_BACKWARD, WEIGHT_FINISH, WEIGHT_PARTIAL,
};

use super::Case;
use crate::{Backward, Error, Flat, Graph, Kind, Operand, Param, Result, Tensor};

mod cases;
mod pooling;
mod unfolded;

use unfolded::{Unfolded, images_at_once};

/// Trips of a kernel's loop that no device cuts short.
const MAX_TRIPS: u64 = 60_000;

/// How a window moves over an image, rows first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels from one place to the next, at least 1.
    pub stride: [usize; 2],
    /// Pixels around the image that count as zero (never, for the largest of a window); fewer
    /// than the window has.
    pub padding: [usize; 2],
}

impl Default for Window {
    fn default() -> Self {
        Window { stride: [1, 1], padding: [0, 0] }
    }
}

/// Sizes as a kernel takes them.
fn words<const N: usize>(op: &'static str, sizes: [usize; N]) -> Result<[u32; N]> {
    let mut words = [0; N];
    for (word, size) in words.iter_mut().zip(sizes) {
        // A million a dimension: sums of a size and twice a padding can't overflow.
        *word = u32::try_from(size)
            .ok()
            .filter(|n| *n < 1 << 20)
            .ok_or_else(|| Error::shape(op, format!("{sizes:?}: no size may reach 1,048,576")))?;
    }
    Ok(words)
}

fn images(graph: &Graph, op: &'static str, x: Tensor) -> Result<[usize; 4]> {
    let shape = graph.shape(x);
    <[usize; 4]>::try_from(shape).map_err(|_| {
        Error::shape(op, format!("{shape:?}, expected [batch, channels, height, width]"))
    })
}

fn convolution(
    graph: &Graph,
    x: Tensor,
    weight: &Param,
    bias: Option<&Param>,
    window: Window,
) -> Result<Convolution> {
    let op = "conv2d";
    let shape = images(graph, op, x)?;
    let [batch, channels, height, width] = words(op, shape)?;
    let fault = |what: &str| {
        let bias = bias.map(|b| b.shape.clone());
        Error::shape(
            op,
            format!("{shape:?} under {:?}, bias {bias:?}, {window:?}: {what}", weight.shape),
        )
    };
    let [filters, depth, kernel_h, kernel_w] = words(
        op,
        <[usize; 4]>::try_from(&weight.shape[..])
            .map_err(|_| fault("the weight has four dimensions"))?,
    )?;
    if depth != channels {
        return Err(fault("the weight's second dimension is the number of channels"));
    }
    if bias.is_some_and(|b| b.shape != [filters as usize]) {
        return Err(fault("the bias has one value a filter"));
    }
    // Rows of taps, taps, and the planes under each.
    let trips =
        u64::from(kernel_h) * (1 + u64::from(kernel_w) * (1 + u64::from(channels.max(filters))));
    if trips > MAX_TRIPS {
        return Err(fault("too many planes times taps for one sum"));
    }
    let [stride_h, stride_w, padding_h, padding_w] =
        words(op, [window.stride[0], window.stride[1], window.padding[0], window.padding[1]])?;
    let [weight_offset, bias_offset, parameter_stride] =
        [weight.offset, bias.map_or(weight.offset, |b| b.offset), graph.parameter_stride()]
            .map(|n| n as u32);
    let sizes = Convolution {
        batch,
        channels,
        height,
        width,
        filters,
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        padding_h,
        padding_w,
        weight_offset,
        bias_offset,
        bias: bias.is_some().into(),
        parameter_stride,
        ..Convolution::default()
    };
    let sizes = sizes
        .complete()
        .ok_or_else(|| fault("the filter doesn't fit, or the result has 2^32 pixels or more"))?;
    Ok(match graph.profile().kind {
        Kind::Cpu => sizes.by_images(),
        _ => sizes,
    })
}

impl Graph {
    /// 2-D convolution as `torch.nn.functional.conv2d`: `x` `[batch, channels, height, width]`,
    /// `weight` `[filters, channels, kernel_h, kernel_w]`, `bias` `[filters]`; the result is
    /// `[batch, filters, out_h, out_w]` with out = ⌊(size + 2 padding − kernel) / stride⌋ + 1.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes don't go together, the filter doesn't fit into the padded
    /// image, or taps times planes exceed what one sum may have.
    pub fn conv2d(
        &mut self,
        x: Tensor,
        weight: &Param,
        bias: Option<&Param>,
        window: Window,
    ) -> Result<Tensor> {
        let p = convolution(self, x, weight, bias, window)?;
        let at_once = images_at_once(self, &p);
        Ok(self.conv2d_by(x, (weight, bias), p, at_once))
    }

    /// [`Graph::conv2d`] as products of so many images at a time, or by kernels of its own.
    fn conv2d_by(
        &mut self,
        x: Tensor,
        (weight, bias): (&Param, Option<&Param>),
        p: Convolution,
        at_once: Option<u32>,
    ) -> Tensor {
        let shape = [p.batch, p.filters, p.out_h, p.out_w].map(|n| n as usize);
        let y = self.tensor("convolution", &shape, Element::F32);
        if let Some(at_once) = at_once {
            let (own, bias) = (weight.clone(), bias.cloned());
            let unfolded = Unfolded { p, at_once, x, y, weight: own, bias: bias.clone() };
            unfolded.forward(self);
            let weights: Vec<&Param> = [weight].into_iter().chain(&bias).collect();
            self.on_backward(&[x], &weights, &[y], move |b| unfolded.backward(b));
            return y;
        }
        let parameters = Operand::Flat(Flat::Parameters);
        self.dispatch(&FORWARD, &p, &[x.into(), parameters, y.into()]);
        let (weight, bias) = (weight.clone(), bias.cloned());
        let weights: Vec<Param> =
            [Some(weight.clone()), bias.clone()].into_iter().flatten().collect();
        let weights: Vec<&Param> = weights.iter().collect();
        self.on_backward(&[x], &weights, &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            if let Some((dx, accumulate)) = b.target(x) {
                let args = [dy.into(), parameters, dx.into()];
                b.dispatch(&INPUT_BACKWARD, &Convolution { accumulate, ..p }, &args);
            }
            let weight_target = b.weight_target(&weight);
            let bias_target = bias.as_ref().and_then(|bias| b.weight_target(bias));
            if weight_target.is_none() && bias_target.is_none() {
                return Ok(());
            }
            let p = Convolution { bias: bias_target.is_some().into(), ..p };
            let shape = [p.splits, p.filters, p.columns()].map(|n| n as usize);
            let partial = b.tensor("weight sums", &shape, Element::F32);
            b.dispatch(&WEIGHT_PARTIAL, &p, &[x.into(), dy.into(), partial.into()]);
            let targets = [
                weight_target.map(|accumulate| p.weight_finish(accumulate)),
                bias_target.map(|accumulate| p.bias_finish(accumulate)),
            ];
            for finish in targets.into_iter().flatten() {
                b.dispatch(&WEIGHT_FINISH, &finish, &[partial.into(), Backward::GRADIENTS]);
            }
            Ok(())
        });
        y
    }
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    [cases::cases(), pooling::cases()].concat()
}

#[cfg(test)]
mod tests;
