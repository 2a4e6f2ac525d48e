use super::*;
use crate::ops::testing::{gradient_check, gradient_check_with, run_cases};
use crate::{Arena, Device, Init, Parameters};

#[test]
fn cases_hold_on_every_device() {
    run_cases(&cases());
}

fn parameters(shape: &[usize]) -> (Parameters, Param, Param) {
    let mut parameters = Parameters::new();
    let bias = parameters.add("conv.bias", &shape[..1], Init::Uniform(0.5)).unwrap();
    let weight = parameters.add("conv.weight", shape, Init::Uniform(0.5)).unwrap();
    (parameters, weight, bias)
}

#[test]
fn gradients_match_finite_differences() {
    for (window, with_bias) in [
        (Window::default(), false),
        (Window { stride: [2, 1], padding: [1, 0] }, true),
        (Window { stride: [1, 3], padding: [2, 1] }, true),
    ] {
        let (parameters, weight, bias) = parameters(&[2, 3, 3, 2]);
        gradient_check_with(&parameters, &[&[2, 3, 5, 4]], |g, x| {
            let mid = g.activation(x[0], crate::Activation::Tanh);
            let y = g.conv2d(mid, &weight, with_bias.then_some(&bias), window)?;
            Ok(g.activation(y, crate::Activation::Tanh))
        });
    }
}

#[test]
fn a_weight_used_twice_gets_both_gradients() {
    let (parameters, weight, bias) = parameters(&[2, 2, 3, 3]);
    let window = Window { padding: [1, 1], ..Window::default() };
    gradient_check_with(&parameters, &[&[1, 2, 4, 3]], |g, x| {
        let y = g.conv2d(x[0], &weight, Some(&bias), window)?;
        let y = g.activation(y, crate::Activation::Tanh);
        g.conv2d(y, &weight, Some(&bias), window)
    });
}

#[test]
fn pooling_gradients_match_finite_differences() {
    for (kernel, window) in [
        ([2, 2], Window { stride: [2, 2], padding: [0, 0] }),
        ([3, 2], Window { stride: [1, 2], padding: [1, 1] }),
    ] {
        gradient_check(&[&[2, 2, 5, 4]], |g, x| {
            let mid = g.activation(x[0], crate::Activation::Tanh);
            let y = g.max_pool2d(mid, kernel, window)?;
            Ok(g.activation(y, crate::Activation::Tanh))
        });
        gradient_check(&[&[2, 2, 5, 4]], |g, x| {
            let mid = g.activation(x[0], crate::Activation::Tanh);
            let y = g.average_pool2d(mid, kernel, window)?;
            Ok(g.activation(y, crate::Activation::Tanh))
        });
    }
}

#[test]
fn shapes_that_do_not_go_together_are_refused_with_the_shapes() {
    let (parameters, weight, bias) = parameters(&[2, 3, 3, 2]);
    let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
    let mut g = Graph::new(&arena);
    let flat = g.input("x", &[3, 5], Element::F32);
    let thin = g.input("x", &[1, 2, 5, 5], Element::F32);
    let low = g.input("x", &[1, 3, 2, 5], Element::F32);
    let image = g.input("x", &[1, 3, 5, 5], Element::F32);
    let still = Window { stride: [0, 1], ..Window::default() };
    let wide = Window { padding: [0, 2], ..Window::default() };
    let window = Window::default();
    for (refused, expected) in [
        (g.conv2d(flat, &weight, None, window), "[3, 5]"),
        (g.conv2d(image, &bias, None, window), "[2]"),
        (g.conv2d(thin, &weight, None, window), "[1, 2, 5, 5] under [2, 3, 3, 2]"),
        (g.conv2d(image, &weight, Some(&weight), window), "one value a filter"),
        (g.conv2d(low, &weight, None, window), "doesn't fit"),
        (g.conv2d(image, &weight, None, still), "doesn't fit"),
        (g.conv2d(image, &weight, None, wide), "doesn't fit"),
        (g.max_pool2d(flat, [2, 2], window), "[3, 5]"),
        (g.max_pool2d(low, [3, 3], window), "[1, 3, 2, 5] under [3, 3]"),
        (g.average_pool2d(image, [2, 2], wide), "doesn't fit"),
    ] {
        let message = refused.map(|_| "no error").unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
