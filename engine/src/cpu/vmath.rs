//! exp, sigmoid and tanh on `f32` without branches, so that loops over slices vectorize, and
//! the macro that compiles such loops for the instruction sets of the machine at hand.
//!
//! Errors, over all arguments: `exp` 2 units in the last place (results below 2.5e-38 become
//! zero), `sigmoid` 3, `tanh` 3; the tests measure them.

/// Defines a function whose body is compiled for AVX-512, for AVX2 and for the baseline, and
/// which picks by what the processor has. Everything that the body calls must be
/// `#[inline(always)]` to be compiled along.
///
/// No contraction to fused multiply-add takes place: all three give the same bits.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $ty),*) $(-> $out)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $out)? {
                    body($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use vectorized;

// ln 2 in two parts; the first has few enough bits that its multiples by whole numbers up to
// 2^11 are exact.
const LN2_HIGH: f32 = 0.692_871_1;
const LN2_LOW: f32 = 0.000_276_086_8;
// Adding 1.5 · 2^23 rounds to a whole number, which then stands in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// x = n ln 2 + r with |r| ≤ ln 2 / 2: gives e^r − 1 and the bits of `ROUND + n`.
/// |x| must be below 2^20.
#[inline(always)]
fn reduce(x: f32) -> (f32, u32) {
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // (e^r − 1 − r) / r², interpolated at Chebyshev's points; relative error of e^r 1e-8.
    let q = 0.041_666_554 + r * (0.008_363_203 + r * 0.001_392_621_3);
    let q = 0.5 + r * (0.166_665_77 + r * q);
    (r + r * r * q, shifted.to_bits())
}

/// 2^(n + shift) from the bits of `ROUND + n`, for n + shift from −126 to 127.
#[inline(always)]
fn power(bits: u32, shift: u32) -> f32 {
    // The upper bits of ROUND are shifted out.
    f32::from_bits((bits << 23).wrapping_add((127u32.wrapping_add(shift)) << 23))
}

/// e^x: 0 below −86.5, infinity above 88.73, NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Comparisons that leave a NaN as it is.
    let bounded = if x < -86.5 { -86.5 } else { x };
    let bounded = if bounded > 88.73 { 88.73 } else { bounded };
    let (minus_one, bits) = reduce(bounded);
    // Half the power at first, since 2^128 is no f32 but e^88.7 is.
    let y = (1.0 + minus_one) * power(bits, u32::MAX) * 2.0;
    let y = if x > 88.722_83 { f32::INFINITY } else { y };
    if x < -86.5 { 0.0 } else { y }
}

/// 1 / (1 + e^−x)
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh x
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    // From 9.02 on the result rounds to 1.
    let bounded = if magnitude > 10.0 { 10.0 } else { magnitude };
    let (minus_one, bits) = reduce(2.0 * bounded);
    let scale = power(bits, 0);
    // e^2x − 1 without cancellation, so that small arguments keep their relative precision.
    let e = scale * minus_one + (scale - 1.0);
    (e / (e + 2.0)).copysign(x)
}

/// Lanes of the reductions below: a vector register of the widest kind.
const LANES: usize = 16;

/// Largest element; negative infinity for none. NaN is passed over.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    #[inline(always)]
    fn take(lanes: &mut [f32; LANES], x: &[f32; LANES]) {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| take(&mut lanes, chunk));
    take(&mut lanes, &padded(rest, f32::NEG_INFINITY));
    lanes.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a })
}

/// The end of a slice that fills no register, and `filler`. It is computed like the other
/// lanes: element by element it would take as long as a hundred of them.
#[inline(always)]
fn padded(rest: &[f32], filler: f32) -> [f32; LANES] {
    let mut lanes = [filler; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// Σ f(x[i], y[i]) over slices of one length, in a fixed order.
#[inline(always)]
pub(crate) fn sum_by(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((left, x_rest), (right, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in left.iter().zip(right) {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane], y[lane]);
        }
    }
    let (x, y) = (padded(x_rest, 0.0), padded(y_rest, 0.0));
    for lane in 0..LANES {
        let term = f(x[lane], y[lane]);
        lanes[lane] += if lane < x_rest.len() { term } else { 0.0 };
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorized! {
        /// y = f(x) for one of the three functions.
        fn map(which: u32, x: &[f32], y: &mut [f32]) {
            for (x, y) in x.iter().zip(y) {
                *y = match which {
                    0 => exp(*x),
                    1 => sigmoid(*x),
                    _ => tanh(*x),
                };
            }
        }
    }

    /// Largest error in units of the last place over many arguments in (−limit, limit),
    /// small ones included.
    fn error(which: u32, limit: f64, exact: impl Fn(f64) -> f64) -> f64 {
        let n = 400_000;
        let at = |i: i32| {
            let t = f64::from(i) / f64::from(n);
            (limit * if i % 2 == 0 { t } else { t * t * t * t }) as f32
        };
        let x: Vec<f32> = (-n..=n).map(|i| if i < 0 { -at(-i) } else { at(i) }).collect();
        let mut y = vec![0.0; x.len()];
        map(which, &x, &mut y);
        x.iter()
            .zip(&y)
            .map(|(x, y)| {
                let exact = exact(f64::from(*x));
                let unit = f64::from((exact as f32).abs().max(1e-37).next_up())
                    - f64::from((exact as f32).abs().max(1e-37));
                (f64::from(*y) - exact).abs() / unit
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn errors_are_within_what_the_module_states() {
        let exp = error(0, 86.4, f64::exp);
        assert!(exp <= 2.0, "exp {exp}");
        let sigmoid = error(1, 80.0, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(sigmoid <= 3.0, "sigmoid {sigmoid}");
        let tanh = error(2, 20.0, f64::tanh);
        assert!(tanh <= 3.0, "tanh {tanh}");
    }

    #[test]
    fn ends_and_special_values() {
        assert_eq!((exp(-200.0), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
        assert_eq!((exp(89.0), exp(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
        let close = f64::from(exp(88.7)) / 88.7f64.exp() - 1.0;
        assert!(close.abs() < 1e-5, "the last binade is finite: {close}");
        assert_eq!((sigmoid(-1e9), sigmoid(1e9), sigmoid(0.0)), (0.0, 1.0, 0.5));
        assert_eq!((tanh(-1e9), tanh(f32::INFINITY), tanh(0.0)), (-1.0, 1.0, 0.0));
        assert!(tanh(-0.0).is_sign_negative());
        assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_take_every_element_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum_by(&x, &x, |x, y| 2.0 * x - y), (n * n.max(1) - n) as f32 / 2.0);
            let expected = if n == 0 { f32::NEG_INFINITY } else { (n - 1) as f32 };
            assert_eq!(largest(&x), expected);
        }
    }
}
