//! Convolutions on GPUs as matrix products, where these are large, but what an image takes is not: what each
//! tap sees is copied out, some images at a time, and multiplied by the filters. The products' variants for
//! each kind of device, tuned choices among them, then compute the convolution. What is copied out for the
//! forward pass is copied once more for the backward pass.

use tern_shaders::Element;
use tern_shaders::kernels::convolution::Convolution;
use tern_shaders::kernels::convolution::columns::{FOLD, PLACE, UNFOLD};
use tern_shaders::kernels::matmul::Order;

use crate::ops::gemm::{Gemm, Matrix};
use crate::ops::pointwise::{Axis, Move};
use crate::{Backward, Flat, Graph, Kind, Operand, Param, Result, Tensor};

/// Words of what is copied out at once, and of what the filters give: all images go through the same
/// memory.
const WORDS: u64 = 1 << 22;
/// Pixels up to which what a pixel's taps see lies together, and what its filters give, so that products
/// have a pixel a row: with few of them, the tiles of their variants are better filled.
const FEW_PIXELS: u32 = 64;
/// Filters and taps below which the kernels for convolutions take less time than copies.
const FEWEST: [u32; 2] = [16, 32];

/// Images that are computed at a time; `None` for convolutions that aren't computed so.
pub(super) fn images_at_once(graph: &Graph, p: &Convolution) -> Option<u32> {
    let [filters, taps] = FEWEST;
    let large = p.groups == 1 && p.filters >= filters && p.taps() >= taps;
    let profile = graph.profile();
    if !large || profile.kind == Kind::Cpu {
        return None;
    }
    let rows = u64::from(p.taps().max(p.filters));
    let of_one = rows * u64::from(p.out_h) * u64::from(p.out_w);
    let images = WORDS.min(profile.max_binding / 4) / of_one;
    Some(images.min(p.batch.into()) as u32).filter(|images| *images > 0)
}

/// A convolution as products.
pub(super) struct Unfolded {
    pub p: Convolution,
    /// Images at a time.
    pub at_once: u32,
    pub x: Tensor,
    pub y: Tensor,
    pub weight: Param,
    pub bias: Option<Param>,
}

impl Unfolded {
    /// What the kernels take, by part of the batch.
    fn parts(&self) -> impl Iterator<Item = Convolution> {
        let (p, at_once) = (self.p, self.at_once);
        let firsts = (0..p.batch).step_by(at_once as usize);
        firsts.map(move |first| {
            let images = at_once.min(p.batch - first);
            let few = images * p.out_h * p.out_w <= FEW_PIXELS;
            Convolution { by_pixel: few.into(), ..p.part(first, images) }
        })
    }

    /// Rows and columns of products: filters, taps, and pixels of a part.
    fn size(&self, part: &Convolution) -> [usize; 3] {
        let pixels = part.images * part.out_h * part.out_w;
        [self.p.filters, self.p.taps(), pixels].map(|n| n as usize)
    }

    /// A tensor of a row a tap or filter and a column a pixel, or the other way around.
    fn tensor(
        graph: &mut Graph,
        label: &str,
        part: &Convolution,
        rows: usize,
        pixels: usize,
    ) -> Tensor {
        let shape = if part.by_pixel == 0 { [rows, pixels] } else { [pixels, rows] };
        graph.tensor(label, &shape, Element::F32)
    }

    fn unfold(&self, graph: &mut Graph, part: &Convolution) -> Tensor {
        let [_, taps, pixels] = self.size(part);
        let columns = Self::tensor(graph, "columns", part, taps, pixels);
        graph.dispatch(&UNFOLD, part, &[self.x.into(), columns.into()]);
        columns
    }

    pub fn forward(&self, graph: &mut Graph) {
        for part in self.parts() {
            let columns = self.unfold(graph, &part);
            let [filters, taps, pixels] = self.size(&part);
            let planes = Self::tensor(graph, "planes", &part, filters, pixels);
            let [seen, result] = [columns, planes].map(|t| Matrix::tensor(graph, t));
            let weight = Matrix::weight(graph, &self.weight).rows(taps);
            let product = match part.by_pixel {
                0 => Gemm::new(Order::Nn, [filters, pixels, taps], weight, seen, result),
                _ => Gemm::new(Order::Nt, [pixels, filters, taps], seen, weight, result),
            };
            product.record(graph);
            let parameters = Operand::Flat(Flat::Parameters);
            graph.dispatch(&PLACE, &part, &[planes.into(), parameters, self.y.into()]);
        }
    }

    /// Gradients of what wants them.
    ///
    /// # Errors
    /// As [`Graph::permute`].
    pub fn backward(&self, b: &mut Backward<'_>) -> Result<()> {
        let Some(dy) = b.gradient(self.y) else { return Ok(()) };
        let dx = b.target(self.x);
        let mut dw = b.weight_target(&self.weight);
        let mut db = self.bias.as_ref().and_then(|bias| Some((bias, b.weight_target(bias)?)));
        if dx.is_none() && dw.is_none() && db.is_none() {
            return Ok(());
        }
        // The first part is the largest.
        let pixels = self.parts().next().map_or(0, |part| self.size(&part)[2]);
        let ones = db.is_some().then(|| b.constant(1.0, &[1, pixels]));
        for part in self.parts() {
            let dy = self.by_filter(b, dy, &part)?;
            if let Some((dx, accumulate)) = dx {
                self.input_gradient(b, dy, (dx, accumulate), &part);
            }
            if let Some(accumulate) = dw {
                self.weight_gradient(b, dy, accumulate, &part);
                dw = Some(1);
            }
            if let (Some((bias, accumulate)), Some(ones)) = (db, ones) {
                let [filters, _, pixels] = self.size(&part);
                let [upstream, ones] = [dy, ones].map(|t| Matrix::tensor(b, t));
                let to = Matrix::gradient(b, bias);
                let product = match part.by_pixel {
                    0 => Gemm::new(Order::Nt, [filters, 1, pixels], upstream, ones, to.rows(1)),
                    _ => Gemm::new(Order::Nn, [1, filters, pixels], ones, upstream, to),
                };
                product.accumulate(accumulate).record(b);
                db = Some((bias, 1));
            }
        }
        Ok(())
    }

    fn input_gradient(
        &self,
        b: &mut Backward<'_>,
        dy: Tensor,
        (dx, accumulate): (Tensor, u32),
        part: &Convolution,
    ) {
        let [filters, taps, pixels] = self.size(part);
        let columns = Self::tensor(b, "d columns", part, taps, pixels);
        let [upstream, to] = [dy, columns].map(|t| Matrix::tensor(b, t));
        let weight = Matrix::weight(b, &self.weight).rows(taps);
        let product = match part.by_pixel {
            0 => Gemm::new(Order::Tn, [taps, pixels, filters], weight, upstream, to),
            _ => Gemm::new(Order::Nn, [pixels, taps, filters], upstream, weight, to),
        };
        product.record(b);
        let part = Convolution { accumulate, ..*part };
        b.dispatch(&FOLD, &part, &[columns.into(), dx.into()]);
    }

    fn weight_gradient(
        &self,
        b: &mut Backward<'_>,
        dy: Tensor,
        accumulate: u32,
        part: &Convolution,
    ) {
        let [filters, taps, pixels] = self.size(part);
        let columns = self.unfold(b, part);
        let [upstream, seen] = [dy, columns].map(|t| Matrix::tensor(b, t));
        let to = Matrix::gradient(b, &self.weight).rows(taps);
        let order = if part.by_pixel == 0 { Order::Nt } else { Order::Tn };
        let product = Gemm::new(order, [filters, taps, pixels], upstream, seen, to);
        product.accumulate(accumulate).record(b);
    }

    /// Planes of some images' gradient, filter by filter, or the filters of each pixel.
    fn by_filter(&self, b: &mut Backward<'_>, dy: Tensor, part: &Convolution) -> Result<Tensor> {
        let [filters, _, pixels] = self.size(part);
        let planes = Self::tensor(b, "d planes", part, filters, pixels);
        let plane = pixels / part.images as usize;
        let (by_filter, by_pixel) = if part.by_pixel == 0 { (pixels, 1) } else { (1, filters) };
        let axis = |size, x, y| Axis { size, x: x as isize, y: y as isize };
        let axes = vec![
            axis(filters, plane, by_filter),
            axis(part.images as usize, filters * plane, plane * by_pixel),
            axis(plane, 1, by_pixel),
        ];
        let moved = Move { axes, x: part.first as usize * filters * plane, y: 0 };
        b.record_move("conv2d", dy, planes, &moved, 0)?;
        Ok(planes)
    }
}
