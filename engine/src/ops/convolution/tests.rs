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

/// Filters with taps apart and in groups, over images and lines, forward and transposed.
#[test]
fn gradients_of_placed_filters_match_finite_differences() {
    let wide = Window { stride: [2, 1], padding: [2, 1] };
    let line = Placement::from(Window::line(2, 2)).dilation([1, 2]).groups(2);
    for (filters, placement) in [
        ([2, 4, 2, 2], Placement::from(wide).dilation([3, 2])),
        ([6, 2, 3, 2], Placement::from(wide).groups(2)),
        ([4, 1, 2, 3], Placement::from(wide).groups(4).dilation([2, 1])),
    ] {
        let (parameters, weight, bias) = parameters(&filters);
        gradient_check_with(&parameters, &[&[2, 4, 6, 5]], |g, x| {
            let mid = g.activation(x[0], crate::Activation::Tanh);
            let y = g.conv2d(mid, &weight, Some(&bias), placement)?;
            Ok(g.activation(y, crate::Activation::Tanh))
        });
    }
    let (parameters, weight, bias) = parameters(&[4, 1, 3]);
    gradient_check_with(&parameters, &[&[2, 2, 7]], |g, x| {
        let mid = g.activation(x[0], crate::Activation::Tanh);
        let y = g.conv1d(mid, &weight, Some(&bias), line)?;
        assert_eq!(g.shape(y), [2, 4, 4]);
        Ok(g.activation(y, crate::Activation::Tanh))
    });
}

#[test]
fn gradients_of_transposed_convolutions_match_finite_differences() {
    let window = Window { stride: [3, 2], padding: [1, 0] };
    for (shape, outputs, placement, extra) in [
        ([4, 3, 3, 2], 3, Placement::from(Window::default()), [0, 0]),
        ([4, 3, 3, 2], 3, window.into(), [2, 1]),
        ([4, 2, 2, 3], 4, Placement::from(window).groups(2).dilation([2, 1]), [0, 1]),
    ] {
        let mut parameters = Parameters::new();
        let bias = parameters.add("bias", &[outputs], Init::Uniform(0.5)).unwrap();
        let weight = parameters.add("weight", &shape, Init::Uniform(0.5)).unwrap();
        gradient_check_with(&parameters, &[&[2, 4, 3, 2]], |g, x| {
            let mid = g.activation(x[0], crate::Activation::Tanh);
            let y = g.conv_transpose2d(mid, &weight, Some(&bias), placement, extra)?;
            // Its input has another gradient, to which its own is added.
            let again = g.conv_transpose2d(mid, &weight, None, placement, extra)?;
            let sum = g.add(y, again)?;
            Ok(g.activation(sum, crate::Activation::Tanh))
        });
    }
}

/// A convolution of so many images at a time, as products.
fn unfolded(
    g: &mut Graph,
    x: Tensor,
    (weight, bias): (&Param, Option<&Param>),
    (window, at_once): (Window, u32),
) -> Result<Tensor> {
    let filters = filters(g, "own", x, weight)?;
    let p = convolution(g, "own", (x, filters), (weight, bias), window.into())?;
    Ok(g.conv2d_by(x, (weight, bias), p, Some(at_once)))
}

#[test]
fn gradients_of_products_match_finite_differences() {
    for (window, with_bias, at_once) in [
        (Window::default(), false, 2),
        (Window { stride: [2, 1], padding: [1, 0] }, true, 1),
        (Window { stride: [1, 3], padding: [2, 1] }, true, 3),
    ] {
        let (parameters, weight, bias) = parameters(&[2, 3, 3, 2]);
        gradient_check_with(&parameters, &[&[3, 3, 5, 4]], |g, x| {
            let mid = g.activation(x[0], crate::Activation::Tanh);
            let filters = (&weight, with_bias.then_some(&bias));
            let y = unfolded(g, mid, filters, (window, at_once))?;
            // The input's gradient is added to another one, the weight's to what the first gave.
            let again = unfolded(g, mid, filters, (window, 1))?;
            let sum = g.add(y, again)?;
            Ok(g.activation(sum, crate::Activation::Tanh))
        });
    }
}

/// Output and gradients of a convolution on a device, of images at a time, or by its own kernels.
fn run(device: &Device, sizes: [usize; 7], at_once: Option<u32>) -> Vec<f64> {
    let [batch, channels, side, filters, kernel, stride, padding] = sizes;
    let (parameters, weight, bias) = parameters(&[filters, channels, kernel, kernel]);
    let arena = Arena::new(device, &parameters, &[3, 4]).unwrap();
    let mut g = Graph::new(&arena);
    let x = g.input("x", &[batch, channels, side, side], Element::F32);
    let window = Window { stride: [stride; 2], padding: [padding; 2] };
    let (placement, shape) = (window.into(), [filters, channels, kernel, kernel]);
    let p = convolution(&g, "own", (x, shape), (&weight, Some(&bias)), placement).unwrap();
    let y = g.conv2d_by(x, (&weight, Some(&bias)), p, at_once);
    g.keep(y);
    let shape = g.shape(y).to_vec();
    let dy = g.input("dy", &shape, Element::F32);
    let (mut plan, gradients) = g.gradients(&[(y, dy)], &crate::Trainable::All, &[x]).unwrap();
    let n = 2 * shape.iter().product::<usize>();
    plan.write(x, &cases::noise(2 * (batch * channels * side * side) as u32, 1)).unwrap();
    plan.write(dy, &cases::noise(n as u32, 2)).unwrap();
    plan.run(1).unwrap();
    let mut found = plan.read_f64(y).unwrap();
    found.extend(plan.read_f64(gradients[0].unwrap()).unwrap());
    found.extend([0, 1].map(|r| arena.read_f64(Flat::Gradients, r).unwrap()).concat());
    found
}

#[test]
fn products_and_kernels_for_convolutions_agree_on_every_device() {
    for sizes in [[5, 3, 9, 18, 3, 2, 1], [3, 33, 6, 20, 3, 1, 1], [4, 40, 7, 17, 1, 2, 0]] {
        let expected = run(&Device::reference_f64(), sizes, None);
        let mut runs = vec![("cpu", run(&Device::cpu(), sizes, Some(2)))];
        for (name, device) in crate::ops::testing::software() {
            runs.extend([1, 2, 5].map(|at_once| (*name, run(device, sizes, Some(at_once)))));
        }
        for (name, found) in runs {
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 5e-5, "{name} {sizes:?}: {a} {b}");
            }
        }
    }
}

/// Groups of so many filters and taps that one of them would be products.
#[test]
fn large_groups_are_computed_on_every_device() {
    let (parameters, weight, bias) = parameters(&[32, 8, 3, 3]);
    let placement = Placement::from(Window { padding: [1, 1], ..Window::default() }).groups(2);
    let run = |device: &Device| {
        let arena = Arena::new(device, &parameters, &[3]).unwrap();
        let mut g = Graph::new(&arena);
        let x = g.input("x", &[2, 16, 6, 5], Element::F32);
        let y = g.conv2d(x, &weight, Some(&bias), placement).unwrap();
        g.keep(y);
        let dy = g.input("dy", &[2, 32, 6, 5], Element::F32);
        let (mut plan, gradients) = g.gradients(&[(y, dy)], &crate::Trainable::All, &[x]).unwrap();
        plan.write(x, &cases::noise(2 * 16 * 30, 1)).unwrap();
        plan.write(dy, &cases::noise(2 * 32 * 30, 2)).unwrap();
        plan.run(1).unwrap();
        let mut found = plan.read_f64(y).unwrap();
        found.extend(plan.read_f64(gradients[0].unwrap()).unwrap());
        found.extend(arena.read_f64(Flat::Gradients, 0).unwrap());
        found
    };
    let expected = run(&Device::reference_f64());
    let software = crate::ops::testing::software().iter().map(|(_, device)| run(device));
    for found in [run(&Device::cpu())].into_iter().chain(software) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 5e-5, "{a} {b}");
        }
    }
}

/// Large convolutions are products on a GPU; small ones, and those of the Cpu, are not.
#[test]
fn large_convolutions_are_products_on_a_gpu() {
    let (parameters, weight, _) = parameters(&[16, 4, 3, 3]);
    let (_, small, _) = self::parameters(&[15, 4, 3, 3]);
    let at_once = |device: &Device, weight: &Param, shape: &[usize]| {
        let mut g = Graph::new(&Arena::new(device, &parameters, &[1]).unwrap());
        let x = g.input("x", shape, Element::F32);
        let (window, filters) = (Window::default(), filters(&g, "own", x, weight).unwrap());
        let p = convolution(&g, "own", (x, filters), (weight, None), window.into()).unwrap();
        images_at_once(&g, &p)
    };
    assert_eq!(at_once(&Device::cpu(), &weight, &[5, 4, 8, 8]), None);
    for (_, device) in crate::ops::testing::software() {
        assert_eq!(at_once(device, &weight, &[5, 4, 8, 8]), Some(5));
        assert_eq!(at_once(device, &small, &[5, 4, 8, 8]), None);
        // 36 taps of 40,000 pixels: two images take 2.9 million words, three more than 4 million.
        assert_eq!(at_once(device, &weight, &[5, 4, 202, 202]), Some(2));
        assert_eq!(at_once(device, &weight, &[1, 4, 402, 402]), None);
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
        (g.conv2d(image, &weight, Some(&weight), window), "the bias has 2 values"),
        (g.conv2d(low, &weight, None, window), "doesn't fit"),
        (g.conv2d(image, &weight, None, still), "doesn't fit"),
        (g.conv2d(image, &weight, None, wide), "doesn't fit"),
        (
            g.conv2d(image, &weight, None, Placement::from(window).groups(2)),
            "multiples of the groups",
        ),
        (g.conv2d(image, &weight, None, Placement::from(window).groups(3)), "3 groups"),
        (g.conv2d(image, &weight, None, Placement::from(window).groups(0)), "0 groups"),
        (g.conv2d(image, &weight, None, Placement::from(window).dilation([0, 1])), "[0, 1]"),
        (g.conv2d(image, &weight, None, Placement::from(window).dilation([3, 1])), "doesn't fit"),
        (g.conv1d(image, &weight, None, window), "[1, 3, 5, 5] under [2, 3, 3, 2]"),
        (g.conv_transpose2d(image, &weight, None, window, [0, 0]), "the number of channels"),
        (g.conv_transpose2d(thin, &weight, None, window, [1, 0]), "less than its stride"),
        (g.conv_transpose2d(thin, &weight, Some(&bias), window, [0, 0]), "the bias has 3 values"),
        (g.max_pool2d(flat, [2, 2], window), "[3, 5]"),
        (g.max_pool2d(low, [3, 3], window), "[1, 3, 2, 5] under [3, 3]"),
        (g.average_pool2d(image, [2, 2], wide), "doesn't fit"),
    ] {
        let message = refused.map(|_| "no error").unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
