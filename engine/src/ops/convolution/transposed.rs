//! Transposed convolution: what the input's gradient of a convolution is, as a layer.

use tern_shaders::Element;
use tern_shaders::kernels::convolution::{Convolution, FORWARD, INPUT_BACKWARD};
use tern_shaders::kernels::pointwise::{SCALE, Scale};
use tern_shaders::kernels::reduce::{ROWS, Reduction, Rows};

use super::{Asked, Placement, filters, images, weight_gradient};
use crate::ops::reduce::sum_columns;
use crate::{Backward, Error, Flat, Graph, Operand, Param, Result, Tensor};

const OP: &str = "conv_transpose2d";

impl Placement {
    /// Rows and columns that a transposed convolution makes of an image; `None` where there are none, or too
    /// many, a padding holds a whole filter, or an output padding isn't less than its stride.
    pub(crate) fn transposed(
        &self,
        image: [usize; 2],
        kernel: [usize; 2],
        extra: [usize; 2],
    ) -> Option<[usize; 2]> {
        let size = |axis: usize| {
            let (stride, padding) = (self.window.stride[axis], self.window.padding[axis]);
            let gaps = image[axis].checked_sub(1)?.checked_mul(stride)?;
            let span = kernel[axis].checked_sub(1)?.checked_mul(self.dilation[axis])?;
            if self.dilation[axis] == 0 || extra[axis] >= stride || padding > span {
                return None;
            }
            let padded = gaps.checked_add(span)?.checked_add(extra[axis])?.checked_add(1)?;
            padded.checked_sub(padding.checked_mul(2)?).filter(|size| (1..1 << 20).contains(size))
        };
        Some([size(0)?, size(1)?])
    }
}

/// The convolution that has the result for its input, and `x` for what it gives.
fn convolution(
    graph: &Graph,
    x: Tensor,
    weight: &Param,
    bias: Option<&Param>,
    placement: Placement,
    output_padding: [usize; 2],
) -> Result<Convolution> {
    let shape = images(graph, OP, x)?;
    let [batch, given, height, width] = shape;
    let fault = |what: &str| {
        let given = format!("{shape:?} under {:?}, {placement:?}", weight.shape);
        Error::shape(OP, format!("{given}, output padding {output_padding:?}: {what}"))
    };
    let filters @ [planes, depth, kernel_h, kernel_w] = filters(graph, OP, x, weight)?;
    if planes != given {
        return Err(fault("the weight's first dimension is the number of channels"));
    }
    // Otherwise the convolution would give more pixels than there are.
    if (0..2).any(|axis| output_padding[axis] >= placement.window.stride[axis].max(1)) {
        return Err(fault("an output padding is less than its stride"));
    }
    let size = placement.transposed([height, width], [kernel_h, kernel_w], output_padding);
    let [height, width] = size.ok_or_else(|| {
        fault("the result has no pixels or too many, or the padding holds a whole filter")
    })?;
    let channels = depth.checked_mul(placement.groups);
    let channels = channels.ok_or_else(|| fault("too many channels"))?;
    let images = [batch, channels, height, width];
    Asked { op: OP, images, filters, weight, bias, biases: channels, placement }.sizes(graph)
}

impl Graph {
    /// 2-D transposed convolution as `torch.nn.functional.conv_transpose2d`: `x`
    /// `[batch, channels, height, width]`, `weight` `[channels, outputs / groups, kernel_h, kernel_w]`,
    /// `bias` `[outputs]`; the result is `[batch, outputs, out_h, out_w]` with
    /// out = (size − 1) · stride − 2 padding + dilation · (kernel − 1) + output padding + 1.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes don't go together, an output padding isn't less than its stride, a
    /// padding holds a whole filter, or the result has no pixels.
    pub fn conv_transpose2d(
        &mut self,
        x: Tensor,
        weight: &Param,
        bias: Option<&Param>,
        placement: impl Into<Placement>,
        output_padding: [usize; 2],
    ) -> Result<Tensor> {
        let p = convolution(self, x, weight, bias, placement.into(), output_padding)?;
        let shape = [p.batch, p.channels, p.height, p.width].map(|n| n as usize);
        let y = self.tensor("transposed convolution", &shape, Element::F32);
        let parameters = Operand::Flat(Flat::Parameters);
        self.dispatch(&INPUT_BACKWARD, &p, &[x.into(), parameters, y.into()]);
        let weights: Vec<&Param> = [weight].into_iter().chain(bias).collect();
        let (weight, bias) = (weight.clone(), bias.cloned());
        self.on_backward(&[x], &weights, &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            let p = Convolution { bias: 0, ..p };
            if let Some((dx, accumulate)) = b.target(x) {
                let shape = b.shape(x).to_vec();
                let to = match accumulate {
                    0 => dx,
                    _ => b.tensor("d transposed convolution", &shape, Element::F32),
                };
                b.dispatch(&FORWARD, &p, &[dy.into(), parameters, to.into()]);
                if accumulate != 0 {
                    let n = b.len(to) as u32;
                    b.dispatch(
                        &SCALE,
                        &Scale { n, factor: 1.0, accumulate },
                        &[to.into(), dx.into()],
                    );
                }
            }
            weight_gradient(b, p, [dy, x], &weight, None);
            let bias = bias.as_ref();
            if let Some((bias, flag)) = bias.and_then(|bias| Some((bias, b.weight_target(bias)?))) {
                let sums = b.tensor("planes' sums", &[p.batch as usize, bias.len()], Element::F32);
                let (rows, columns) = (p.batch * p.channels, p.height * p.width);
                let params = Rows { rows, columns, kind: Reduction::Sum as u32 };
                b.dispatch(&ROWS, &params, &[dy.into(), sums.into()]);
                let out = (Backward::GRADIENTS, bias.offset, b.parameter_stride());
                sum_columns(b, sums, [p.batch as usize, bias.len()], out, flag);
            }
            Ok(())
        });
        Ok(y)
    }
}
