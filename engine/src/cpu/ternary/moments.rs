//! Partial sums for the scales of ternary codes.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::Arg;
use tern_shaders::kernels::ternary::Moments;

use super::super::isa::with_vectors;
use super::super::mixed::{get, set};
use super::super::vector::{from_fn, lanes, splat};
use super::finite_or_zero;

/// Lanes a task takes; it walks its tensor in rows of all lanes.
const LANES: usize = 256;
/// Rows that are added before the sums are written.
const ROWS: usize = 4;

/// One array a moment, so that neighbors in a row are neighbors in memory.
type Sums = [[f32; LANES]; 4];

pub(super) fn moments(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Moments = bytemuck::from_bytes(p);
    let [x, residual, segments, lengths, thresholds, partials] = args else {
        unreachable!("bindings were checked")
    };
    let (tensors, lanes) = (p.tensors as usize, p.lanes as usize);
    let (x, residual) = (x.real(), residual.real());
    let (segments, lengths, thresholds) = (segments.word(), lengths.word(), thresholds.real());
    let partials = &mut partials.real_mut()[..4 * replicas * tensors * lanes];
    let tasks: Vec<_> = partials
        .chunks_mut(4 * lanes)
        .enumerate()
        .flat_map(|(row, partials)| {
            let tasks = partials.chunks_mut(4 * LANES).enumerate();
            tasks.map(move |(task, partials)| (row, task * LANES, partials))
        })
        .collect();
    tasks.into_par_iter().for_each(|(row, first, partials)| {
        let tensor = row % tensors;
        let start = row / tensors * p.stride as usize + segments[tensor] as usize;
        let own = start..start + lengths[tensor] as usize;
        let task = Task {
            x: &x[own.clone()],
            residual: if p.feedback != 0 { &residual[own] } else { &[] },
            lanes,
            first,
            width: partials.len() / 4,
            above: (p.above != 0).then_some(thresholds[row]),
        };
        let sums = with_vectors!(s => task.sums(s));
        for (lane, partial) in partials.chunks_exact_mut(4).enumerate() {
            for (partial, sums) in partial.iter_mut().zip(&sums) {
                *partial = sums[lane];
            }
        }
    });
}

/// Lanes `first..first + width` of a tensor; `residual` is empty without feedback.
struct Task<'a> {
    x: &'a [f32],
    residual: &'a [f32],
    lanes: usize,
    first: usize,
    width: usize,
    above: Option<f32>,
}

impl Task<'_> {
    #[inline(always)]
    fn sums<S: Simd>(&self, s: S) -> Sums {
        match (self.residual.is_empty(), self.above) {
            (true, None) => self.walk::<S, false, false>(s, 0.0),
            (false, None) => self.walk::<S, true, false>(s, 0.0),
            (true, Some(threshold)) => self.walk::<S, false, true>(s, threshold),
            (false, Some(threshold)) => self.walk::<S, true, true>(s, threshold),
        }
    }

    #[inline(always)]
    fn walk<S: Simd, const FEEDBACK: bool, const ABOVE: bool>(&self, s: S, threshold: f32) -> Sums {
        let mut sums = [[0.0; LANES]; 4];
        let mut at = self.first;
        while at + (ROWS - 1) * self.lanes + self.width <= self.x.len() {
            self.rows::<S, ROWS, FEEDBACK, ABOVE>(s, at, self.width, threshold, &mut sums);
            at += ROWS * self.lanes;
        }
        while at < self.x.len() {
            let width = self.width.min(self.x.len() - at);
            self.rows::<S, 1, FEEDBACK, ABOVE>(s, at, width, threshold, &mut sums);
            at += self.lanes;
        }
        sums
    }

    /// Adds the `width` elements from `at` on, and those of the rows after, to their lanes.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const FEEDBACK: bool, const ABOVE: bool>(
        &self,
        s: S,
        at: usize,
        width: usize,
        threshold: f32,
        sums: &mut Sums,
    ) {
        let (zero, one) = (splat(s, 0.0), splat(s, 1.0));
        for lane in (0..width).step_by(lanes::<S>()) {
            let n = lanes::<S>().min(width - lane);
            let mut moments: [S::f32s; 4] = from_fn(
                #[inline(always)]
                |k| get(s, &sums[k][lane..], n),
            );
            for row in 0..R {
                let at = at + row * self.lanes + lane;
                let mut v: S::f32s = get(s, &self.x[at..], n);
                if FEEDBACK {
                    v += get::<S, S::f32s>(s, &self.residual[at..], n);
                }
                let v = finite_or_zero(s, v);
                let magnitude = v.abs();
                if ABOVE {
                    let counts = magnitude.simd_gt(threshold);
                    moments[0] += counts.select(magnitude, zero);
                    moments[1] += counts.select(one, zero);
                } else {
                    moments[0] = moments[0].max(magnitude);
                    moments[1] += magnitude;
                    moments[2] += v;
                    moments[3] += v * v;
                }
            }
            for (sums, moments) in sums.iter_mut().zip(moments) {
                set(&mut sums[lane..], n, moments);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tern_shaders::kernels::ternary::moments;

    use super::super::super::isa::Isa;
    use super::*;

    #[test]
    fn every_instruction_set_and_lane_gives_the_references_sums() {
        let mut x: Vec<f32> = (0..2000).map(|i| (i as f32 * 0.7).sin()).collect();
        x[77] = f32::INFINITY;
        let residual: Vec<f32> = (0..2000).map(|i| (i as f32 * 0.3).cos()).collect();
        for isa in Isa::available() {
            for (lanes, length, feedback, above) in
                [(7, 2000, 0, 0), (64, 1999, 1, 0), (200, 1337, 1, 1), (64, 30, 0, 1)]
            {
                let stride = 2000;
                let p = Moments { tensors: 1, stride, longest: length, lanes, feedback, above };
                let mut expected = vec![9.0; 4 * lanes as usize];
                let (segments, lengths) = ([0, stride], [length]);
                moments(&p, 1, &x, &residual, &segments, &lengths, &[0.5], &mut expected);
                let task = Task {
                    x: &x[..length as usize],
                    residual: &residual[..feedback as usize * length as usize],
                    lanes: lanes as usize,
                    first: 0,
                    width: lanes as usize,
                    above: (above != 0).then_some(0.5),
                };
                let sums = with_vectors!(isa.level().unwrap(), s => task.sums(s));
                for (lane, expected) in expected.chunks(4).enumerate() {
                    assert_eq!(sums.map(|moment| moment[lane]), expected, "{isa} {p:?}");
                }
            }
        }
    }
}
