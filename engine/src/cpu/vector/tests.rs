use super::*;
use crate::cpu::isa::{Isa, with_vectors};

/// y = f(x) for one of the functions.
#[inline(always)]
fn map<S: Simd>(s: S, which: u32, x: &[f32], y: &mut [f32]) {
    put(
        s,
        [x],
        false,
        y,
        #[inline(always)]
        |[x]| match which {
            0 => exp(s, x),
            1 => sigmoid(s, x),
            2 => tanh(s, x),
            3 => ln_1p(s, x.abs()),
            _ => ln(s, x.abs() + 1.0),
        },
    );
}

fn one(isa: Isa, which: u32, x: f32) -> f32 {
    let mut y = [0.0];
    with_vectors!(isa.level().unwrap(), s => map(s, which, &[x], &mut y));
    y[0]
}

/// Largest error in units of the last place over many arguments in (−limit, limit),
/// small ones included.
fn error(isa: Isa, which: u32, limit: f64, exact: impl Fn(f64) -> f64) -> f64 {
    let n = 400_000;
    let at = |i: i32| {
        let t = f64::from(i) / f64::from(n);
        (limit * if i % 2 == 0 { t } else { t * t * t * t }) as f32
    };
    let x: Vec<f32> = (-n..=n).map(|i| if i < 0 { -at(-i) } else { at(i) }).collect();
    let mut y = vec![0.0; x.len()];
    with_vectors!(isa.level().unwrap(), s => map(s, which, &x, &mut y));
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
    for isa in Isa::available() {
        let exp = error(isa, 0, 86.4, f64::exp);
        assert!(exp <= 2.0, "exp {exp} on {isa}");
        let sigmoid = error(isa, 1, 80.0, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(sigmoid <= 3.0, "sigmoid {sigmoid} on {isa}");
        let tanh = error(isa, 2, 20.0, f64::tanh);
        assert!(tanh <= 3.0, "tanh {tanh} on {isa}");
        let ln_1p = error(isa, 3, 1.0, |x| x.abs().ln_1p());
        assert!(ln_1p <= 3.0, "ln_1p {ln_1p} on {isa}");
        for limit in [1.0, 1e4, 1e36] {
            let ln = error(isa, 4, limit, |x| f64::from(x.abs() as f32 + 1.0).ln());
            assert!(ln <= 3.0, "ln {ln} up to {limit} on {isa}");
        }
    }
}

#[test]
fn ends_and_special_values() {
    for isa in Isa::available() {
        let exp = |x| one(isa, 0, x);
        let sigmoid = |x| one(isa, 1, x);
        let tanh = |x| one(isa, 2, x);
        assert_eq!((exp(-200.0), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
        assert_eq!((exp(89.0), exp(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
        let close = f64::from(exp(88.7)) / 88.7f64.exp() - 1.0;
        assert!(close.abs() < 1e-5, "the last binade is finite: {close}");
        assert_eq!((sigmoid(-1e9), sigmoid(1e9), sigmoid(0.0)), (0.0, 1.0, 0.5));
        assert_eq!((tanh(-1e9), tanh(f32::INFINITY), tanh(0.0)), (-1.0, 1.0, 0.0));
        assert!(tanh(-0.0).is_sign_negative());
        assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}

#[test]
fn every_element_is_visited_once() {
    for isa in Isa::available() {
        for n in [0, 1, 3, 4, 15, 16, 17, 100, 5000] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let twice = with_vectors!(isa.level().unwrap(), s => {
                sum(s, [&x, &x], #[inline(always)] |[x, y]| x * 2.0 - y + 1.0)
            });
            assert_eq!(twice, (n * n.max(1) - n) as f32 / 2.0 + n as f32, "{isa} {n}");
            let expected = if n == 0 { f32::NEG_INFINITY } else { (n - 1) as f32 };
            assert_eq!(with_vectors!(isa.level().unwrap(), s => largest(s, &x)), expected);
            let odd: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
            let counted = with_vectors!(isa.level().unwrap(), s => tally(s, &odd, inlined(#[inline(always)] |x| x)));
            assert_eq!(counted as usize, n / 2, "{isa} {n}");
            let (mut a, mut b) = (x.clone(), vec![1.0; n]);
            with_vectors!(isa.level().unwrap(), s => {
                rewrite(s, [&x], [&mut a, &mut b], #[inline(always)] |[x], [a, b]| [a + x, b + b])
            });
            assert!(a.iter().zip(&x).all(|(a, x)| *a == 2.0 * x), "{isa} {n}");
            assert!(b.iter().all(|b| *b == 2.0), "{isa} {n}");
        }
    }
}
