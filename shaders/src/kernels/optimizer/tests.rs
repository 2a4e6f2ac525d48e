use super::*;
use crate::schedule::Schedule;
use crate::state::STEP;
use crate::state::StateRecord;

const N: usize = 5;

fn record(step: u32, rate: f64) -> Vec<u32> {
    let mut record = StateRecord::new(0, 0..1, 1, u32::MAX, &Schedule::constant(rate));
    record[STEP] = step;
    record.to_vec()
}

/// A gradient that changes from step to step.
fn gradient(step: u32) -> [f64; N] {
    std::array::from_fn(|i| ((step * 7 + i as u32 * 3) % 11) as f64 / 4.0 - 1.25)
}

/// Runs `steps` steps and gives the parameters; the buffers start with foreign numbers.
fn train(steps: u32, mut step: impl FnMut(&mut [f64], &[f64], &[u32])) -> Vec<f64> {
    let mut w: Vec<f64> = (0..N).map(|i| 0.5 - i as f64).collect();
    for s in 0..steps {
        step(&mut w, &gradient(s), &record(s, 0.125));
    }
    w
}

fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance, "{a} and {b}");
    }
}

#[test]
fn momentum_is_the_weighted_sum_of_all_gradients() {
    for (nesterov, fresh) in [(0, 1.0), (1, 1.0), (0, 0.5)] {
        let p = Sgd {
            n: N as u32,
            stride: N as u32,
            momentum: 0.75,
            fresh,
            nesterov,
            scale: 1.0,
            rate: 1.0,
            ..Default::default()
        };
        let mut m = [99.0; N];
        let w = train(6, |w, g, state| sgd(&p, 1, w, g, &mut m, state, &[1.0]));
        // d_s = Σ 0.75^(s−k) g_k, one factor more for the past with the look-ahead; all but the
        // first dampened.
        let expected: Vec<f64> = (0..N)
            .map(|i| {
                let mut w = 0.5 - i as f64;
                for s in 0..6u32 {
                    let sum = |upto: u32| -> f64 {
                        let share = |k| if k == 0 { 1.0 } else { f64::from(fresh) };
                        let term = |k| share(k) * 0.75f64.powi((s - k) as i32) * gradient(k)[i];
                        (0..=upto).map(term).sum()
                    };
                    let d = sum(s);
                    w -= 0.125 * if nesterov != 0 { gradient(s)[i] + 0.75 * d } else { d };
                }
                w
            })
            .collect();
        assert_close(&w, &expected, 1e-12);
    }
}

#[test]
fn plain_sgd_is_sgd_with_no_momentum_and_decay_is_an_l2_gradient() {
    let (n, stride) = (N as u32, N as u32);
    let plain =
        SgdPlain { n, stride, weight_decay: 0.25, scale: 0.5, clipped: 1, rate: 1.0, offset: 0 };
    let with = Sgd {
        n,
        stride,
        fresh: 1.0,
        weight_decay: 0.25,
        scale: 0.5,
        clipped: 1,
        rate: 1.0,
        ..Default::default()
    };
    let a = train(4, |w, g, state| sgd_plain(&plain, 1, w, g, state, &[0.5]));
    let mut m = [99.0; N];
    let b = train(4, |w, g, state| sgd(&with, 1, w, g, &mut m, state, &[0.5]));
    assert_eq!(a, b);
    let c = train(4, |w, g, _| {
        for (w, g) in w.iter_mut().zip(g) {
            *w -= 0.125 * (0.25 * g + 0.25 * *w);
        }
    });
    assert_close(&a, &c, 1e-12);
}

#[test]
fn adam_follows_the_closed_form_of_its_moments() {
    for decoupled in [0, 1] {
        let p = Adam {
            n: N as u32,
            stride: N as u32,
            epsilon: 1e-8,
            weight_decay: 0.25,
            decoupled,
            scale: 1.0,
            rate: 1.0,
            ..Default::default()
        }
        .betas(0.9, 0.999);
        let (mut m, mut v) = ([99.0; N], [99.0; N]);
        let w = train(8, |w, g, state| adam(&p, 1, w, g, &mut m, &mut v, state, &[1.0]));
        let expected: Vec<f64> = (0..N)
            .map(|i| {
                let mut w = 0.5 - i as f64;
                let mut past = Vec::new();
                for s in 0..8u32 {
                    let g = gradient(s)[i];
                    past.push(if decoupled != 0 { g } else { g + 0.25 * w });
                    // Weighted means of the past: the corrections make the weights sum to 1.
                    let mean = |beta: f64, f: fn(f64) -> f64| -> f64 {
                        let weight = |k: usize| beta.powi(s as i32 - k as i32);
                        let total: f64 = (0..past.len()).map(weight).sum();
                        past.iter().enumerate().map(|(k, g)| weight(k) * f(*g)).sum::<f64>() / total
                    };
                    let step = mean(0.9, |g| g) / (mean(0.999, |g| g * g).sqrt() + 1e-8);
                    let shrink = if decoupled != 0 { 1.0 - 0.125 * 0.25 } else { 1.0 };
                    w = w * shrink - 0.125 * step;
                }
                w
            })
            .collect();
        // The parameters hold β and ε as f32.
        assert_close(&w, &expected, 1e-6);
    }
}

#[test]
fn only_active_replicas_change_and_only_in_the_range() {
    let p = SgdPlain { offset: 4, n: 3, stride: 8, scale: 1.0, rate: 1.0, ..Default::default() };
    let mut w = [1.0f32; 16];
    let mut state = [record(0, 0.5), record(0, 0.5)].concat();
    state[ACTIVE] = 0;
    sgd_plain(&p, 2, &mut w, &[1.0; 16], &state, &[1.0; 2]);
    let mut expected = [1.0; 16];
    expected[12..15].fill(0.5);
    assert_eq!(w, expected);
}

#[test]
fn clipping_scales_a_long_gradient_to_the_norm_and_keeps_a_short_one() {
    // Two chunks and a bit, 3 and 4 in places that are far apart: norm 5.
    let n = 2 * NORM_CHUNK + 3;
    let mut g = vec![0.0f64; n as usize + 4];
    g[4] = 3.0;
    g[n as usize + 3] = 4.0;
    let p = NormPartial { offset: 4, n, stride: n + 4, partial_offset: 1, partial_stride: 4 };
    let mut partial = [0.0; 4];
    norm_partial(&p, 1, &g, &mut partial);
    assert_eq!(partial, [0.0, 9.0, 0.0, 16.0]);
    let (mut norm, mut clip) = ([0.0], [0.0]);
    let p = NormFinish { count: 4, partial_stride: 4, max_norm: 1.0, scale: 2.0 };
    norm_finish(&p, 1, &partial, &mut norm, &mut clip);
    assert_eq!(norm, [10.0]);
    assert_close(&clip, &[0.1], 1e-7);
    norm_finish(&NormFinish { max_norm: 20.0, ..p }, 1, &partial, &mut norm, &mut clip);
    assert_eq!(clip, [1.0]);
}

#[test]
fn the_proximal_gradient_is_the_slope_of_its_penalty() {
    let p = Proximal { offset: 0, n: N as u32, stride: N as u32, reference_stride: 0, mu: 0.5 };
    let w: Vec<f64> = (0..2 * N).map(|i| i as f64 * 0.3).collect();
    let reference: Vec<f64> = (0..N).map(|i| 1.0 - i as f64).collect();
    let penalty = |w: &[f64]| -> f64 {
        0.25 * w.iter().enumerate().map(|(i, w)| (w - reference[i % N]).powi(2)).sum::<f64>()
    };
    let mut g = vec![1.0; 2 * N];
    proximal(&p, 2, &w, &reference, &mut g);
    for i in 0..2 * N {
        let (mut up, mut down) = (w.clone(), w.clone());
        up[i] += 1e-4;
        down[i] -= 1e-4;
        let slope = (penalty(&up) - penalty(&down)) / 2e-4;
        assert!((g[i] - 1.0 - slope).abs() < 1e-8);
    }
}

#[test]
fn an_average_is_of_all_weights_by_their_age() {
    let p = Average { offset: 0, n: N as u32, stride: N as u32, fresh: 0.25 };
    let weights = |s: u32| -> Vec<f64> { (0..N).map(|i| f64::from(s) - 0.5 * i as f64).collect() };
    let mut mean = [99.0; N];
    for s in 0..5 {
        average_weights(&p, 1, &weights(s), &mut mean, &record(s, 0.5));
    }
    // The first counts as all before it, too.
    for (i, mean) in mean.iter().enumerate() {
        let share = |s: i32| if s == 0 { 0.75f64.powi(4) } else { 0.25 * 0.75f64.powi(4 - s) };
        let expected: f64 = (0..5).map(|s| share(s) * weights(s as u32)[i]).sum();
        assert!((mean - expected).abs() < 1e-12);
    }
}

#[test]
fn what_was_summed_is_divided_by_what_counts() {
    let p = MeanOfParts { offset: 1, n: 2, stride: 4 };
    let mut x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    mean_of_parts(&p, 2, &[4.0, 0.0], &mut x);
    assert_eq!(x, [1.0, 0.5, 0.75, 4.0, 5.0, 0.0, 0.0, 8.0]);
}
