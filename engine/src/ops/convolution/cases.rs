//! Cases of the convolution's kernels.

use tern_shaders::kernels::convolution::columns::{FOLD, PLACE, UNFOLD};
use tern_shaders::kernels::convolution::{
    Convolution, FORWARD, INPUT_BACKWARD, WEIGHT_FINISH, WEIGHT_PARTIAL,
};
use tern_shaders::kernels::random::{pcg4d, uniform};

use crate::Data;
use crate::ops::Case;

/// Numbers without a pattern that a wrong index could hit by chance.
pub(super) fn noise(n: u32, key: u32) -> Data {
    let bits = |i: u32| pcg4d([i, key, 0, 0])[0];
    Data::F32((0..n).map(|i| uniform(bits(i)) - 0.5).collect())
}

/// [batch, channels, height, width, filters, kernel_h, kernel_w, stride_h, stride_w,
/// padding_h, padding_w, bias] and replicas.
const CONVOLUTIONS: &[([u32; 12], u32)] = &[
    ([1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], 1),
    ([2, 3, 5, 4, 2, 3, 2, 2, 1, 1, 1, 1], 3),
    ([3, 2, 9, 11, 17, 4, 3, 3, 2, 2, 0, 1], 2),
    ([2, 9, 7, 7, 8, 1, 1, 1, 1, 0, 0, 0], 2),
    ([4, 1, 28, 28, 16, 5, 5, 1, 1, 2, 2, 1], 1),
    ([8, 16, 14, 14, 32, 3, 3, 1, 1, 1, 1, 1], 1),
    // Images with small planes, of which some are computed at a time, and the last is alone; more
    // filters and taps than a block has.
    ([65, 3, 2, 2, 19, 3, 3, 1, 1, 1, 1, 1], 2),
    ([7, 60, 9, 8, 33, 3, 3, 2, 2, 1, 1, 0], 2),
    ([5, 20, 12, 20, 130, 1, 5, 1, 1, 0, 2, 1], 1),
    // As many channels as the input's gradient is a convolution for.
    ([3, 34, 13, 11, 6, 3, 3, 1, 1, 1, 1, 1], 2),
    // Parts of images, each with some rows.
    ([17, 2, 10, 20, 3, 3, 3, 1, 1, 1, 1, 1], 1),
    // A filter longer than a vector, along one line.
    ([2, 2, 1, 300, 5, 1, 40, 1, 1, 0, 20, 1], 2),
    // A long sum: 2,000 planes of 9 taps, and one of 72,000 pixels.
    ([1, 2000, 3, 3, 1, 3, 3, 1, 1, 1, 1, 0], 1),
    ([2, 1, 200, 180, 1, 1, 1, 1, 1, 0, 0, 1], 1),
];

/// As above, with [dilation_h, dilation_w, groups].
const PLACED: &[([u32; 12], [u32; 3], u32)] = &[
    // Taps apart, in images of small planes and large ones, dense and not.
    ([5, 3, 9, 8, 6, 3, 2, 1, 1, 2, 1, 1], [2, 3, 1], 2),
    ([2, 33, 14, 13, 5, 3, 3, 1, 1, 2, 2, 1], [2, 2, 1], 1),
    ([3, 4, 11, 12, 3, 2, 3, 3, 2, 1, 2, 0], [4, 2, 1], 2),
    // Depthwise, one filter a channel and three, with planes shorter than a vector and longer.
    ([3, 5, 6, 7, 5, 3, 3, 1, 1, 1, 1, 1], [1, 1, 5], 2),
    ([2, 4, 17, 19, 12, 3, 5, 1, 1, 1, 2, 1], [1, 1, 4], 2),
    ([2, 6, 12, 35, 6, 3, 3, 2, 2, 1, 1, 0], [1, 1, 6], 1),
    ([1, 3, 10, 40, 3, 3, 3, 1, 1, 4, 2, 1], [4, 2, 3], 2),
    // Groups of some filters and channels, and of one filter of many channels.
    ([3, 12, 8, 9, 20, 3, 3, 1, 1, 1, 1, 1], [1, 1, 4], 2),
    ([2, 20, 15, 13, 10, 3, 2, 2, 1, 2, 1, 1], [2, 1, 2], 1),
    ([2, 14, 5, 6, 2, 3, 3, 1, 1, 1, 1, 1], [1, 1, 2], 2),
];

fn convolution_cases(
    cases: &mut Vec<Case>,
    sizes: [u32; 12],
    [dilation_h, dilation_w, groups]: [u32; 3],
    replicas: u32,
) {
    let [batch, channels, height, width, filters, kernel_h, kernel_w, ..] = sizes;
    let [.., stride_h, stride_w, padding_h, padding_w, bias] = sizes;
    let weight = filters * channels / groups * kernel_h * kernel_w;
    let base = Convolution {
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
        weight_offset: 3,
        bias_offset: 3 + weight,
        bias,
        // The bias is one of the channels, too.
        parameter_stride: 4 + weight + filters.max(channels),
        dilation_h,
        dilation_w,
        groups,
        ..Convolution::default()
    };
    let Some(p) = base.complete() else { return };
    let input = replicas * batch * channels * height * width;
    let output = replicas * batch * filters * p.out_h * p.out_w;
    let mut label = format!("{sizes:?}");
    if [dilation_h, dilation_w, groups] != [1; 3] {
        label += &format!(", dilation {dilation_h} x {dilation_w}, {groups} groups");
    }
    let (x, y, dy) = (noise(input, 1), noise(output, 2), noise(output, 3));
    let parameters = noise(replicas * p.parameter_stride, 4);
    let partial = noise(replicas * p.splits * filters * p.columns(), 5);
    let by_images = p.by_images();
    let fewer = noise(replicas * by_images.splits * filters * p.columns(), 5);
    let flops = 2 * u64::from(output) * u64::from(p.taps());
    let replicas = replicas as usize;
    // Sums of up to 36,000 terms below 1/4, one after the other.
    let case = |kernel, label: &str, params: &Convolution, buffers| {
        Case::new(kernel, label, params, replicas, buffers).flops(flops).tolerance(5e-5)
    };
    cases.push(case(&FORWARD, &label, &p, vec![x.clone(), parameters.clone(), y]));
    cases.push(case(&WEIGHT_PARTIAL, &label, &p, vec![x.clone(), dy.clone(), partial.clone()]));
    if by_images.splits != p.splits {
        let label = format!("{label} by images");
        cases.push(case(&WEIGHT_PARTIAL, &label, &by_images, vec![x.clone(), dy.clone(), fewer]));
    }
    if groups == 1 {
        column_cases(cases, &p, replicas);
    }
    for accumulate in [0, 1] {
        let label = format!("{label} accumulate {accumulate}");
        for bias in 0..=bias {
            let label = format!("{label} bias {bias}");
            let params = Convolution { accumulate, bias, ..p };
            let buffers = vec![dy.clone(), parameters.clone(), x.clone()];
            cases.push(case(&INPUT_BACKWARD, &label, &params, buffers));
        }
        let weight = Some(p.weight_finish(accumulate));
        let bias = (bias != 0).then(|| p.bias_finish(accumulate));
        for finish in [weight, bias].into_iter().flatten() {
            let label = format!("{label} of {}", finish.count);
            let buffers = vec![partial.clone(), parameters.clone()];
            cases.push(Case::new(&WEIGHT_FINISH, label, &finish, replicas, buffers));
        }
    }
}

/// Cases of all images at once, and of some in the middle of the batch.
fn column_cases(cases: &mut Vec<Case>, p: &Convolution, replicas: usize) {
    let n = |words: u32, key| noise(words * replicas as u32, key);
    for (first, images, by_pixel) in [
        (0, p.batch, 0),
        (p.batch / 3, p.batch.div_ceil(2), 0),
        (p.batch / 3, p.batch.div_ceil(2), 1),
    ] {
        let part = Convolution { by_pixel, ..p.part(first, images) };
        let pixels = images * p.out_h * p.out_w;
        let (x, columns) = (p.batch * p.channels * p.height * p.width, p.taps() * pixels);
        let label = format!(
            "{}x{} under {}x{} of {} planes, {replicas} replicas, images {first} to {}, by pixel {by_pixel}",
            p.height,
            p.width,
            p.kernel_h,
            p.kernel_w,
            p.channels,
            first + images
        );
        let buffers = vec![n(x, 1), n(columns, 2)];
        cases.push(Case::new(&UNFOLD, &label, &part, replicas, buffers));
        for accumulate in [0, 1] {
            let label = format!("{label}, accumulate {accumulate}");
            let part = Convolution { accumulate, ..part };
            cases.push(Case::new(&FOLD, label, &part, replicas, vec![n(columns, 2), n(x, 1)]));
        }
        let y = p.batch * p.filters * p.out_h * p.out_w;
        let buffers = vec![n(p.filters * pixels, 3), n(p.parameter_stride, 4), n(y, 5)];
        cases.push(Case::new(&PLACE, &label, &part, replicas, buffers));
    }
}

/// Cases of the convolution.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (sizes, replicas) in CONVOLUTIONS {
        convolution_cases(&mut cases, *sizes, [1; 3], *replicas);
    }
    for (sizes, placed, replicas) in PLACED {
        convolution_cases(&mut cases, *sizes, *placed, *replicas);
    }
    cases
}
