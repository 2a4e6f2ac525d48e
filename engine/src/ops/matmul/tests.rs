use super::*;
use crate::ops::testing::{gradient_check, gradient_check_with, run_cases, software};
use crate::{Arena, Device, Flat, Init, Parameters, Trainable};

#[test]
fn cases_hold_on_every_device() {
    run_cases(&cases());
}

#[test]
fn gradients_of_matmul_match_finite_differences() {
    gradient_check(&[&[2, 3, 4], &[4, 5]], |g, x| {
        let mid = g.activation(x[0], Activation::Tanh);
        let y = g.matmul(mid, x[1])?;
        Ok(g.activation(y, Activation::Sigmoid))
    });
}

#[test]
fn products_of_leading_axes_match_finite_differences() {
    gradient_check(&[&[2, 3, 4, 2], &[3, 2, 5], &[2, 1, 5, 1]], |g, x| {
        let y = g.matmul(x[0], x[1])?;
        let y = g.activation(y, Activation::Tanh);
        g.matmul(y, x[2])
    });
}

#[test]
fn a_tensor_times_itself_gets_both_gradients() {
    gradient_check(&[&[4, 4]], |g, x| g.matmul(x[0], x[0]));
}

#[test]
fn gradients_of_linear_match_finite_differences() {
    let mut parameters = Parameters::new();
    let w = parameters.add("fc.weight", &[5, 4], Init::Uniform(0.7)).unwrap();
    let b = parameters.add("fc.bias", &[5], Init::Uniform(0.7)).unwrap();
    let last = parameters.add("last.weight", &[3, 5], Init::Uniform(0.7)).unwrap();
    for kind in Activation::ALL {
        gradient_check_with(&parameters, &[&[2, 3, 4]], |g, x| {
            let mid = g.activation(x[0], Activation::Tanh);
            let y = g.linear(mid, &w, Some(&b), kind)?;
            g.linear(y, &last, None, Activation::Identity)
        });
    }
}

#[test]
fn gradients_that_come_back_in_another_form_are_those_of_the_product() {
    let mut parameters = Parameters::new();
    let w = parameters.add("fc.weight", &[5, 4], Init::Uniform(0.7)).unwrap();
    let b = parameters.add("fc.bias", &[5], Init::Uniform(0.7)).unwrap();
    gradient_check_with(&parameters, &[&[2, 3, 4]], |g, x| {
        let y = g.linear(x[0], &w, Some(&b), Activation::Identity)?;
        // Used in two forms, and the result has a third.
        let pairs = g.reshape(y, &[15, 2])?;
        let pairs = g.tanh(pairs);
        let rows = g.reshape(pairs, &[3, 10])?;
        let same = g.reshape(y, &[3, 10])?;
        let rows = g.multiply(rows, same)?;
        g.reshape(rows, &[30])
    });
}

#[test]
fn wrong_shapes_are_named() {
    let mut parameters = Parameters::new();
    let w = parameters.add("w", &[5, 4], Init::Zeros).unwrap();
    let b = parameters.add("b", &[4], Init::Zeros).unwrap();
    let mut g = Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap());
    let x = g.input("x", &[2, 3], Element::F32);
    let y = g.input("y", &[2, 4], Element::F32);
    let message = g.matmul(x, y).unwrap_err().to_string();
    assert!(message.contains("[2, 3] by [2, 4]"), "{message}");
    let message = g.linear(x, &w, None, Activation::Relu).unwrap_err().to_string();
    assert!(message.contains("[2, 3]") && message.contains("[5, 4]"), "{message}");
    let message = g.linear(y, &w, Some(&b), Activation::Relu).unwrap_err().to_string();
    assert!(message.contains("bias Some([4])"), "{message}");
}

/// Sums so long that they are cut: into pieces one after the other where the result is large
/// or activated, into parts side by side where it is small and plain.
#[test]
fn long_sums_are_cut() {
    let (m, k) = (3, 2 * matmul::MAX_LOOP as usize + 70);
    let mut parameters = Parameters::new();
    let w = parameters.add("w", &[2, k], Init::Uniform(1.0)).unwrap();
    let b = parameters.add("b", &[2], Init::Uniform(1.0)).unwrap();
    let devices = software().iter().map(|(_, device)| device.clone());
    let mut results = Vec::new();
    for device in [Device::reference_f64(), Device::cpu()].into_iter().chain(devices) {
        let arena = Arena::new(&device, &parameters, &[1, 2]).unwrap();
        let mut g = Graph::new(&arena);
        let x = g.input("x", &[m, k], Element::F32);
        let left = g.input("left", &[m, k], Element::F32);
        let right = g.input("right", &[k, 5], Element::F32);
        let y = g.linear(x, &w, Some(&b), Activation::Sigmoid).unwrap();
        let z = g.matmul(left, right).unwrap();
        let dz = g.constant(0.5, &[m, 5]);
        let dy = g.constant(1.5, &[m, 2]);
        g.keep(y);
        g.keep(z);
        let (mut plan, gradients) =
            g.gradients(&[(y, dy), (z, dz)], &Trainable::All, &[right]).unwrap();
        let ramp = |n: usize, q: usize| {
            Data::F32((0..2 * n).map(|i| (i * q % 1013) as f32 / 5065.0 - 0.1).collect())
        };
        plan.write(x, &ramp(m * k, 7919)).unwrap();
        plan.write(left, &ramp(m * k, 577)).unwrap();
        plan.write(right, &ramp(k * 5, 331)).unwrap();
        plan.run(1).unwrap();
        let mut found = plan.read_f64(y).unwrap();
        found.extend(plan.read_f64(z).unwrap());
        found.extend(&plan.read_f64(gradients[0].unwrap()).unwrap()[..100]);
        found.extend(&arena.read_f64(Flat::Gradients, 1).unwrap()[..100]);
        results.push(found);
    }
    for found in &results[1..] {
        for (expected, found) in results[0].iter().zip(found) {
            assert!((expected - found).abs() < 2e-5 * expected.abs().max(10.0));
        }
    }
}

/// Products of leading axes on a device, of two replicas.
fn items(device: &Device) -> Vec<f64> {
    let mut parameters = Parameters::new();
    parameters.add("unused", &[1], Init::Zeros).unwrap();
    let arena = Arena::new(device, &parameters, &[1, 2]).unwrap();
    let mut graph = Graph::new(&arena);
    let a = graph.input("a", &[3, 2, 9, 20], Element::F32);
    let b = graph.input("b", &[3, 2, 20, 33], Element::F32);
    let c = graph.matmul(a, b).unwrap();
    graph.keep(c);
    let seed = graph.input("dc", &[3, 2, 9, 33], Element::F32);
    let (mut plan, gradients) = graph.gradients(&[(c, seed)], &Trainable::None, &[a, b]).unwrap();
    for (key, (tensor, len)) in (1..).zip([(a, 1080), (b, 3960), (seed, 1782)]) {
        let values = crate::ops::testing::floats(2 * len, 1.0, key);
        plan.write(tensor, &Data::F32(values)).unwrap();
    }
    plan.run(1).unwrap();
    let mut found = plan.read_f64(c).unwrap();
    gradients.into_iter().flatten().for_each(|d| found.extend(plan.read_f64(d).unwrap()));
    found
}

#[test]
fn devices_agree_on_products_of_leading_axes() {
    let expected = items(&Device::reference_f64());
    for (name, device) in software().iter().chain([&("cpu", Device::cpu())]) {
        for (found, expected) in items(device).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{name}: {found} {expected}");
        }
    }
}
