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
mod transposed;
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

impl Window {
    /// Over a line, as [`Graph::conv1d`] takes it.
    pub fn line(stride: usize, padding: usize) -> Self {
        Window { stride: [1, stride], padding: [0, padding] }
    }
}

/// How filters lie on images: their window, what lies between their taps, and the channels that they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// Of the filter, with what lies between its taps.
    pub window: Window,
    /// Pixels from one tap to the next, rows first; 1 by default.
    pub dilation: [usize; 2],
    /// Groups of channels, each seen by as many filters; 1 by default. As many as channels make the
    /// convolution depthwise.
    pub groups: usize,
}

impl From<Window> for Placement {
    fn from(window: Window) -> Self {
        Placement { window, dilation: [1, 1], groups: 1 }
    }
}

impl Placement {
    /// With so many pixels from one tap to the next, rows first.
    pub fn dilation(mut self, dilation: [usize; 2]) -> Self {
        self.dilation = dilation;
        self
    }

    /// With so many groups of channels.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }
}

fn images(graph: &Graph, op: &'static str, x: Tensor) -> Result<[usize; 4]> {
    let shape = graph.shape(x);
    <[usize; 4]>::try_from(shape).map_err(|_| {
        Error::shape(op, format!("{shape:?}, expected [batch, channels, height, width]"))
    })
}

/// A convolution whose shapes are looked at.
struct Asked<'a> {
    op: &'static str,
    /// Of the images that the filters lie on.
    images: [usize; 4],
    /// `[filters, channels / groups, kernel_h, kernel_w]`.
    filters: [usize; 4],
    weight: &'a Param,
    bias: Option<&'a Param>,
    /// Values of the bias, if there is one.
    biases: usize,
    placement: Placement,
}

impl Asked<'_> {
    fn fault(&self, what: &str) -> Error {
        let bias = self.bias.map(|bias| bias.shape.clone());
        let Asked { op, images, weight, placement, .. } = self;
        let Placement { window, dilation, groups } = placement;
        let mut given = format!("{images:?} under {:?}, bias {bias:?}, {window:?}", weight.shape);
        if *placement != Placement::from(*window) {
            given = format!("{given}, dilation {dilation:?}, {groups} groups");
        }
        Error::shape(op, format!("{given}: {what}"))
    }

    fn sizes(&self, graph: &Graph) -> Result<Convolution> {
        let Asked { op, weight, bias, .. } = *self;
        let [batch, channels, height, width] = words(op, self.images)?;
        let [filters, depth, kernel_h, kernel_w] = words(op, self.filters)?;
        let Window { stride, padding } = self.placement.window;
        let [stride_h, stride_w, padding_h, padding_w] =
            words(op, [stride[0], stride[1], padding[0], padding[1]])?;
        let Placement { dilation, groups, .. } = self.placement;
        let [groups, dilation_h, dilation_w] = words(op, [groups, dilation[0], dilation[1]])?;
        if groups == 0 || [channels, filters].iter().any(|n| !n.is_multiple_of(groups)) {
            return Err(self.fault("channels and filters are multiples of the groups"));
        }
        if depth != channels / groups {
            return Err(self.fault("the weight's second dimension is the channels of a group"));
        }
        if bias.is_some_and(|bias| bias.shape != [self.biases]) {
            return Err(self.fault(&format!("the bias has {} values", self.biases)));
        }
        if dilation_h == 0 || dilation_w == 0 {
            return Err(self.fault("a dilation is 1 at least"));
        }
        // Rows of taps, taps, and the planes under each.
        let planes = u64::from(depth.max(filters / groups));
        let trips = u64::from(kernel_h) * (1 + u64::from(kernel_w) * (1 + planes));
        if trips > MAX_TRIPS {
            return Err(self.fault("too many planes times taps for one sum"));
        }
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
            dilation_h,
            dilation_w,
            groups,
            ..Convolution::default()
        };
        let sizes = sizes.complete().ok_or_else(|| {
            self.fault("the filter doesn't fit, or the result has 2^32 pixels or more")
        })?;
        Ok(match graph.profile().kind {
            Kind::Cpu => sizes.by_images(),
            _ => sizes,
        })
    }
}

/// A convolution of images by filters, `[filters, channels / groups, kernel_h, kernel_w]`.
fn convolution(
    graph: &Graph,
    op: &'static str,
    (x, filters): (Tensor, [usize; 4]),
    (weight, bias): (&Param, Option<&Param>),
    placement: Placement,
) -> Result<Convolution> {
    let images = images(graph, op, x)?;
    Asked { op, images, filters, weight, bias, biases: filters[0], placement }.sizes(graph)
}

/// The shape of filters.
fn filters(graph: &Graph, op: &'static str, x: Tensor, weight: &Param) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(&weight.shape[..]).map_err(|_| {
        let (x, weight) = (graph.shape(x), &weight.shape);
        Error::shape(op, format!("{x:?} under {weight:?}: the weight has four dimensions"))
    })
}

impl Graph {
    /// 2-D convolution as `torch.nn.functional.conv2d`: `x` `[batch, channels, height, width]`,
    /// `weight` `[filters, channels / groups, kernel_h, kernel_w]`, `bias` `[filters]`; the result is
    /// `[batch, filters, out_h, out_w]` with
    /// out = ⌊(size + 2 padding − dilation · (kernel − 1) − 1) / stride⌋ + 1. `placement` is a [`Window`]
    /// or what [`Placement`] makes of one.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes don't go together, the filter doesn't fit into the padded
    /// image, or taps times planes exceed what one sum may have.
    pub fn conv2d(
        &mut self,
        x: Tensor,
        weight: &Param,
        bias: Option<&Param>,
        placement: impl Into<Placement>,
    ) -> Result<Tensor> {
        let op = "conv2d";
        let filters = filters(self, op, x, weight)?;
        let p = convolution(self, op, (x, filters), (weight, bias), placement.into())?;
        let at_once = images_at_once(self, &p);
        Ok(self.conv2d_by(x, (weight, bias), p, at_once))
    }

    /// 1-D convolution as `torch.nn.functional.conv1d`: `x` `[batch, channels, length]`, `weight`
    /// `[filters, channels / groups, kernel]`, `bias` `[filters]`; the result is `[batch, filters, out]`.
    /// Of `placement`, what is for rows stays as it is by default (see [`Window::line`]).
    ///
    /// # Errors
    /// As [`Graph::conv2d`], and for other dimensions.
    pub fn conv1d(
        &mut self,
        x: Tensor,
        weight: &Param,
        bias: Option<&Param>,
        placement: impl Into<Placement>,
    ) -> Result<Tensor> {
        let (&[batch, channels, length], &[filters, depth, kernel]) =
            (self.shape(x), &weight.shape[..])
        else {
            let what = format!(
                "{:?} under {:?}, expected [batch, channels, length] under [filters, channels, kernel]",
                self.shape(x),
                weight.shape
            );
            return Err(Error::shape("conv1d", what));
        };
        let (op, rows) = ("conv1d", [filters, depth, 1, kernel]);
        let x = self.reshape(x, &[batch, channels, 1, length])?;
        let p = convolution(self, op, (x, rows), (weight, bias), placement.into())?;
        let at_once = images_at_once(self, &p);
        let y = self.conv2d_by(x, (weight, bias), p, at_once);
        self.check()?;
        self.reshape(y, &[p.batch, p.filters, p.out_w].map(|n| n as usize))
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
        let weights: Vec<&Param> = [weight].into_iter().chain(bias).collect();
        let (weight, bias) = (weight.clone(), bias.cloned());
        self.on_backward(&[x], &weights, &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            if let Some((dx, accumulate)) = b.target(x) {
                let args = [dy.into(), parameters, dx.into()];
                b.dispatch(&INPUT_BACKWARD, &Convolution { accumulate, bias: 0, ..p }, &args);
            }
            weight_gradient(b, p, [x, dy], &weight, bias.as_ref());
            Ok(())
        });
        y
    }
}

/// Gradients of the filters and, where there is a bias of them, of that, from what the filters lie on and the
/// gradient of what they give.
fn weight_gradient(
    b: &mut Backward<'_>,
    p: Convolution,
    [x, dy]: [Tensor; 2],
    weight: &Param,
    bias: Option<&Param>,
) {
    let weight_target = b.weight_target(weight);
    let bias_target = bias.and_then(|bias| b.weight_target(bias));
    if weight_target.is_none() && bias_target.is_none() {
        return;
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
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    [cases::cases(), pooling::cases()].concat()
}

#[cfg(test)]
mod tests;
