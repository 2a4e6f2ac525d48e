//! Images with their padding, and the matrices that a convolution makes of them: what each tap sees at
//! each output pixel. They are in no memory: a product asks for the part that it needs next.

use std::ops::Range;

use fearless_simd::prelude::*;
use fearless_simd::{Simd, f32x4};
use tern_shaders::kernels::convolution::Convolution;

use crate::cpu::product::{Right, Shape};
use crate::cpu::vector::{assign, lanes, load, store};

/// Sizes of a convolution of one group, and where taps and pixels are in an image with its padding.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub filters: usize,
    pub taps: usize,
    /// Floats of the group in an image as it comes in and as it goes out.
    pub input: usize,
    pub output: usize,
    /// Rows and columns of an output plane.
    pub out: [usize; 2],
    pub channels: usize,
    /// Rows and columns of an input plane, and zeros around it: above and below, left and right.
    image: [usize; 2],
    padding: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Rows and columns from one tap to the next.
    dilation: [usize; 2],
}

impl Sizes {
    /// Of each group.
    pub fn of(p: &Convolution) -> Self {
        let filters = p.filters / p.groups;
        let [channels, height, width, filters, out_h, out_w] =
            [p.depth(), p.height, p.width, filters, p.out_h, p.out_w].map(|n| n as usize);
        let two = |[h, w]: [u32; 2]| [h as usize, w as usize];
        Sizes {
            filters,
            taps: p.taps() as usize,
            input: channels * height * width,
            output: filters * out_h * out_w,
            out: [out_h, out_w],
            channels,
            image: [height, width],
            padding: two([p.padding_h, p.padding_w]),
            kernel: two([p.kernel_h, p.kernel_w]),
            stride: two([p.stride_h, p.stride_w]),
            dilation: two([p.dilation_h, p.dilation_w]),
        }
    }

    /// The convolution that gives the input's gradient from the output's, of filters turned around:
    /// there is one for a stride of one.
    pub fn backward(self) -> Option<Self> {
        let padding = [0, 1].map(|i| self.dilation[i] * (self.kernel[i] - 1) - self.padding[i]);
        self.is_dense().then_some(Sizes {
            filters: self.channels,
            taps: self.filters * self.kernel[0] * self.kernel[1],
            input: self.output,
            output: self.input,
            out: self.image,
            channels: self.filters,
            image: self.out,
            padding,
            ..self
        })
    }

    /// Pixels of an output plane.
    pub fn plane(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// Pixels of a filter's plane.
    pub fn kernel(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Floats of a row of a plane with its padding, and rows.
    fn padded(&self) -> [usize; 2] {
        [self.image[1] + 2 * self.padding[1], self.image[0] + 2 * self.padding[0]]
    }

    /// Floats from row to row of an image with its padding.
    pub fn pitch(&self) -> usize {
        self.padded()[0]
    }

    /// Whether an output pixel's neighbor sees what lies beside it.
    pub fn is_dense(&self) -> bool {
        self.stride == [1, 1]
    }

    /// Floats of an image with its padding.
    pub fn padded_image(&self) -> usize {
        self.channels * self.padded().iter().product::<usize>()
    }

    /// Writes images with their padding, one after another.
    pub fn pad(&self, images: &[f32], to: &mut [f32]) {
        let [pitch, rows] = self.padded();
        let [height, width] = self.image;
        let [above, left] = self.padding;
        let planes = images.chunks_exact(height * width).zip(to.chunks_exact_mut(pitch * rows));
        for (plane, to) in planes {
            if self.padding == [0, 0] {
                to.copy_from_slice(plane);
                continue;
            }
            let mut at = above * pitch + left;
            to[..at].fill(0.0);
            for row in plane.chunks_exact(width) {
                to[at..at + width].copy_from_slice(row);
                // The right end of this row and the left one of the next.
                let next = (at + pitch).min(to.len());
                to[at + width..next].fill(0.0);
                at = next;
            }
            to[at..].fill(0.0);
        }
    }

    /// Adds, or sets, what images with their padding have for the pixels of one without.
    pub fn crop(&self, padded: &[f32], add: bool, image: &mut [f32]) {
        let [pitch, rows] = self.padded();
        let [height, width] = self.image;
        let [above, left] = self.padding;
        let planes = image.chunks_exact_mut(height * width).zip(padded.chunks_exact(pitch * rows));
        for (plane, padded) in planes {
            let rows = padded.chunks_exact(pitch).skip(above);
            for (to, from) in plane.chunks_exact_mut(width).zip(rows) {
                let from = &from[left..][..width];
                match add {
                    true => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
                    false => to.copy_from_slice(from),
                }
            }
        }
    }

    /// An image with its padding of what the taps, rows of a matrix, have for those pixels that they
    /// see from the columns of one image.
    #[inline(always)]
    pub fn spread<S: Simd>(
        &self,
        s: S,
        matrix: &[f32],
        columns: usize,
        pixels: Range<usize>,
        padded: &mut [f32],
    ) {
        padded[..self.padded_image()].fill(0.0);
        for (tap, to) in self.places(0..self.taps).enumerate() {
            let row = &matrix[tap * columns + pixels.start..][..pixels.len()];
            let to = &mut padded[to..];
            self.runs(
                0..pixels.len(),
                #[inline(always)]
                |at, n, from| {
                    let row = &row[at..at + n];
                    match self.stride[1] {
                        1 => assign(s, row, true, &mut to[from..from + n]),
                        stride => {
                            let to = to[from..].iter_mut().step_by(stride);
                            to.zip(row).for_each(|(to, x)| *to += *x);
                        }
                    }
                },
            );
        }
    }

    /// Where the first pixel that a tap sees lies in an image with its padding.
    #[inline(always)]
    pub fn tap(&self, tap: usize) -> usize {
        let [pitch, rows] = self.padded();
        let (channel, place) = (tap / self.kernel(), tap % self.kernel());
        let (i, j) = (place / self.kernel[1], place % self.kernel[1]);
        (channel * rows + i * self.dilation[0]) * pitch + j * self.dilation[1]
    }

    /// [`Sizes::tap`] of taps one after another.
    #[inline(always)]
    pub fn places(&self, taps: Range<usize>) -> impl Iterator<Item = usize> {
        let ([pitch, rows], [height, width]) = (self.padded(), self.kernel);
        let [down, across] = [self.dilation[0] * pitch, self.dilation[1]];
        let mut at = self.tap(taps.start);
        let place = taps.start % self.kernel();
        let (mut i, mut j) = (place / width, place % width);
        taps.map(
            #[inline(always)]
            move |_| {
                let tap = at;
                (at, j) = (at + across, j + 1);
                if j == width {
                    (at, i, j) = (at + down - width * across, i + 1, 0);
                }
                if i == height {
                    (at, i) = (at + rows * pitch - height * down, 0);
                }
                tap
            },
        )
    }

    /// Calls `f` with runs of some output pixels of images one after another, which lie side by side
    /// in an image with its padding if the stride is one: the first pixel's number, how many, and
    /// where the first tap sees them.
    #[inline(always)]
    pub fn runs(&self, pixels: Range<usize>, mut f: impl FnMut(usize, usize, usize)) {
        let [pitch, _] = self.padded();
        let [_, width] = self.out;
        let (mut row, mut column) = (pixels.start / width, pixels.start % width);
        let mut at = pixels.start;
        while at < pixels.end {
            let n = (width - column).min(pixels.end - at);
            let (image, of_image) = (row / self.out[0], row % self.out[0]);
            let from = image * self.padded_image()
                + of_image * self.stride[0] * pitch
                + column * self.stride[1];
            f(at, n, from);
            (at, row, column) = (at + n, row + 1, 0);
        }
    }
}

/// Pieces of a sliver's row: each is a vector, of which the next overwrites what isn't its own.
const PIECES: usize = 64;

/// Where the pieces of a sliver's row come from, from left to right.
struct Pieces {
    /// Columns, and where the first float is found.
    pieces: [(usize, usize); PIECES],
    count: usize,
    /// Floats of the last run that are no whole piece.
    rest: usize,
}

impl Pieces {
    #[inline(always)]
    fn new() -> Self {
        Pieces { pieces: [(0, 0); PIECES], count: 0, rest: 0 }
    }

    /// So many floats, which lie side by side, in pieces of `l`.
    #[inline(always)]
    fn push(&mut self, l: usize, column: usize, n: usize, from: usize) {
        for at in (0..n).step_by(l) {
            self.pieces[self.count] = (column + at, from + at);
            self.count += 1;
            self.rest = l.min(n - at);
        }
    }

    /// Writes a row.
    #[inline(always)]
    fn write<S: Simd, V: SimdBase<S, Element = f32>>(&self, s: S, from: &[f32], to: &mut [f32]) {
        let Some((&(column, at), before)) = self.pieces[..self.count].split_last() else { return };
        for &(column, at) in before {
            store(&mut to[column..], load::<S, V>(s, &from[at..]));
        }
        match to.get_mut(column..column + V::LEN) {
            Some(to) => store(to, load::<S, V>(s, &from[at..])),
            None => to[column..][..self.rest].copy_from_slice(&from[at..][..self.rest]),
        }
    }
}

/// What each tap sees at each pixel, of images one after another.
pub(super) struct Seen<'a> {
    pub sizes: Sizes,
    pub pixels: Range<usize>,
    /// The images with their padding, and a line more.
    pub padded: &'a [f32],
    /// Whether its rows are the pixels, `[pixels, taps]`, and not the taps, `[taps, pixels]`.
    pub by_pixels: bool,
}

impl Right for Seen<'_> {
    #[inline(always)]
    fn size(&self) -> [usize; 2] {
        let (taps, pixels) = (self.sizes.taps, self.pixels.len());
        if self.by_pixels { [pixels, taps] } else { [taps, pixels] }
    }

    #[inline(always)]
    fn pack<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        columns: Range<usize>,
        shape: Shape,
        to: &mut [f32],
    ) {
        let mut to = to;
        for first in columns.clone().step_by(shape.columns) {
            let sliver = first..columns.end.min(first + shape.columns);
            let width = shape.width::<S>(sliver.len());
            match self.by_pixels {
                true => self.pixels(s, rows.clone(), sliver, width, to),
                false => self.taps(s, rows.clone(), sliver, width, to),
            }
            to = &mut to[rows.len() * width..];
        }
    }
}

impl Seen<'_> {
    /// A sliver whose rows are taps.
    #[inline(always)]
    fn taps<S: Simd>(
        &self,
        s: S,
        taps: Range<usize>,
        sliver: Range<usize>,
        width: usize,
        to: &mut [f32],
    ) {
        let sizes = &self.sizes;
        let pixels = self.pixels.start + sliver.start..self.pixels.start + sliver.end;
        let (first, stride) = (pixels.start, sizes.stride[1]);
        let mut pieces = Pieces::new();
        sizes.runs(
            pixels,
            #[inline(always)]
            |at, n, from| match stride {
                1 => pieces.push(lanes::<S>(), at - first, n, from),
                _ => (0..n).for_each(|i| pieces.push(1, at - first + i, 1, from + i * stride)),
            },
        );
        for (row, tap) in sizes.places(taps).enumerate() {
            let (from, to) = (&self.padded[tap..], &mut to[row * width..]);
            match stride {
                1 => pieces.write::<S, S::f32s>(s, from, to),
                _ => {
                    for &(column, at) in &pieces.pieces[..pieces.count] {
                        to[column] = from[at];
                    }
                }
            }
        }
    }

    /// A sliver whose rows are pixels.
    #[inline(always)]
    fn pixels<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        taps: Range<usize>,
        width: usize,
        to: &mut [f32],
    ) {
        let sizes = &self.sizes;
        // Taps of a filter's row see neighbors, if there is nothing in between.
        let across = if sizes.dilation[1] == 1 { sizes.kernel[1] } else { 1 };
        let mut pieces = Pieces::new();
        let mut tap = taps.start;
        while tap < taps.end {
            let n = (across - tap % across).min(taps.end - tap);
            pieces.push(4, tap - taps.start, n, sizes.tap(tap));
            tap += n;
        }
        let pixels = self.pixels.start + rows.start..self.pixels.start + rows.end;
        let first = pixels.start;
        sizes.runs(
            pixels,
            #[inline(always)]
            |at, n, from| {
                for i in 0..n {
                    let from = &self.padded[from + i * sizes.stride[1]..];
                    pieces.write::<S, f32x4<S>>(s, from, &mut to[(at + i - first) * width..]);
                }
            },
        );
    }
}
