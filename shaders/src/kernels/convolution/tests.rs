use super::*;

/// Numbers without a pattern that a wrong index could hit by chance.
pub(super) fn noise(n: usize, seed: u32) -> Vec<f64> {
    (0..n as u32)
        .map(|i| {
            let words = crate::kernels::random::pcg4d([i, seed, 0, 0]);
            f64::from(crate::kernels::random::uniform(words[0])) - 0.5
        })
        .collect()
}

fn sample() -> Convolution {
    Convolution {
        batch: 2,
        channels: 3,
        height: 5,
        width: 4,
        filters: 2,
        kernel_h: 3,
        kernel_w: 2,
        stride_h: 2,
        stride_w: 1,
        padding_h: 1,
        padding_w: 1,
        weight_offset: 4,
        bias_offset: 1,
        bias: 1,
        parameter_stride: 44,
        ..Default::default()
    }
    .complete()
    .unwrap()
}

#[test]
fn a_known_convolution() {
    // A 3 × 3 image under [[1, 2], [3, 4]] with bias 100.
    let p = Convolution {
        batch: 1,
        channels: 1,
        height: 3,
        width: 3,
        filters: 1,
        kernel_h: 2,
        kernel_w: 2,
        stride_h: 1,
        stride_w: 1,
        bias_offset: 4,
        bias: 1,
        parameter_stride: 5,
        ..Default::default()
    }
    .complete()
    .unwrap();
    let x: Vec<f64> = (1..10).map(f64::from).collect();
    let mut y = [0.0; 4];
    forward(&p, 1, &x, &[1.0, 2.0, 3.0, 4.0, 100.0], &mut y);
    assert_eq!(y, [137.0, 147.0, 167.0, 177.0]);
    // One row and column of zeros on both sides, every second place.
    let p = Convolution { padding_h: 1, padding_w: 1, stride_h: 2, stride_w: 2, bias: 0, ..p };
    let p = p.complete().unwrap();
    forward(&p, 1, &x, &[1.0, 2.0, 3.0, 4.0, 100.0], &mut y);
    assert_eq!(y, [4.0, 18.0, 36.0, 77.0]);
}

#[test]
fn filters_that_do_not_fit_are_refused() {
    assert_eq!(places(5, 3, 1, 0), Some(3));
    assert_eq!(places(5, 3, 2, 1), Some(3));
    assert_eq!(places(2, 3, 1, 0), None);
    assert_eq!(places(2, 3, 0, 1), None);
    assert_eq!(places(9, 3, 1, 3), None);
    assert_eq!(places(9, 0, 1, 0), None);
}

/// Holds gradients against finite differences of Σ k · forward, which is linear in each input.
pub(super) fn check_slope(point: &[f64], gradient: &[f64], loss: impl Fn(&[f64]) -> f64) {
    for i in 0..point.len() {
        let (mut up, mut down) = (point.to_vec(), point.to_vec());
        up[i] += 0.5;
        down[i] -= 0.5;
        let slope = loss(&up) - loss(&down);
        assert!((gradient[i] - slope).abs() < 1e-12, "at {i}: {} and {slope}", gradient[i]);
    }
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    let replicas = 2;
    for (splits, placed) in [(1, [1, 1, 1]), (3, [2, 3, 1]), (7, [1, 1, 3]), (3, [2, 1, 3])] {
        let [dilation_h, dilation_w, groups] = placed;
        let filters = if groups == 1 { 2 } else { 6 };
        let p = Convolution {
            // Filters with taps apart fit an image with more around it.
            padding_h: dilation_h,
            padding_w: dilation_w,
            dilation_h,
            dilation_w,
            groups,
            filters,
            bias_offset: if groups == 1 { 1 } else { 40 },
            parameter_stride: 46,
            ..sample()
        };
        let p = Convolution { splits, ..p.complete().unwrap() };
        let (input, output) = sizes(&p);
        let x = noise(replicas * input, 1);
        let w = noise(replicas * p.parameter_stride as usize, 2);
        let k = noise(replicas * output, 3);
        let loss = |x: &[f64], w: &[f64]| {
            let mut y = vec![0.0; replicas * output];
            forward(&p, replicas, x, w, &mut y);
            y.iter().zip(&k).map(|(y, k)| y * k).sum::<f64>()
        };

        let mut dx = vec![9.0; x.len()];
        let unbiased = Convolution { bias: 0, ..p };
        input_backward(&unbiased, replicas, &k, &w, &mut dx);
        check_slope(&x, &dx, |x| loss(x, &w));
        // As a transposed convolution it has a bias of the channels.
        let mut transposed = vec![9.0; x.len()];
        input_backward(&p, replicas, &k, &w, &mut transposed);
        let plane = (p.height * p.width) as usize;
        for (at, (with, without)) in transposed.iter().zip(&dx).enumerate() {
            let (channel, image) = (at / plane % 3, at / plane / 3);
            let bias =
                w[image / 2 * p.parameter_stride as usize + p.bias_offset as usize + channel];
            assert!((with - without - bias).abs() < 1e-12);
        }

        let size = replicas * (p.splits * p.filters * p.columns()) as usize;
        let mut partial = vec![9.0; size];
        weight_partial(&p, replicas, &x, &k, &mut partial);
        // What no weight and no bias occupies stays zero, like the slope.
        let mut dw = vec![0.0; w.len()];
        weight_finish(&p.weight_finish(0), replicas, &partial, &mut dw);
        weight_finish(&p.bias_finish(0), replicas, &partial, &mut dw);
        check_slope(&w, &dw, |w| loss(&x, w));

        let p = Convolution { accumulate: 1, ..p };
        let unbiased = Convolution { accumulate: 1, ..unbiased };
        let (once_x, once_w) = (dx.clone(), dw.clone());
        input_backward(&unbiased, replicas, &k, &w, &mut dx);
        weight_finish(&p.weight_finish(1), replicas, &partial, &mut dw);
        weight_finish(&p.bias_finish(1), replicas, &partial, &mut dw);
        for (twice, once) in dx.iter().zip(&once_x).chain(dw.iter().zip(&once_w)) {
            assert!((twice - 2.0 * once).abs() < 1e-12);
        }
    }
}

#[test]
fn splits_keep_an_invocation_short_and_the_partial_sums_small() {
    for (batch, channels, side, filters) in [(1, 1, 1, 1), (256, 64, 28, 64), (4096, 1, 28, 8)] {
        let p = Convolution {
            batch,
            channels,
            height: side,
            width: side,
            filters,
            kernel_h: 1,
            kernel_w: 1,
            stride_h: 1,
            stride_w: 1,
            ..Default::default()
        }
        .complete()
        .unwrap();
        assert!((batch * side * side).div_ceil(p.splits) <= 32_768);
        assert!(p.splits * filters * p.taps() <= 1 << 21);
        assert!(p.splits >= 1);
    }
}

#[test]
fn parts_by_images_are_no_more_and_whole_where_the_batch_divides() {
    let of = |batch: u32, splits: u32| {
        Convolution { batch, splits, ..Convolution::default() }.by_images().splits
    };
    assert_eq!([of(32, 98), of(24, 98), of(8, 98), of(8, 1), of(12, 7)], [16, 12, 8, 1, 6]);
    // No divisor is near: the parts are even, and none of whole images.
    assert_eq!([of(17, 98), of(34, 98), of(1, 98), of(7, 5)], [16, 16, 16, 5]);
}
