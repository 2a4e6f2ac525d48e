use super::*;
use crate::ops::testing::{floats, gradient_check, run_cases, software};
use crate::{Activation, Arena, Device, Init, Parameters, Plan, Trainable};

#[test]
fn cases_hold_on_every_device() {
    run_cases(&cases());
}

fn graph(device: &Device) -> Graph {
    let mut parameters = Parameters::new();
    parameters.add("unused", &[1], Init::Zeros).unwrap();
    Graph::new(&Arena::new(device, &parameters, &[1]).unwrap())
}

#[test]
fn gradients_match_finite_differences() {
    let shapes: [&[usize]; 3] = [&[3, 2, 4, 8], &[5, 2, 2, 8], &[5, 2, 2, 8]];
    gradient_check(&shapes, |g, x| {
        let window = vec![0, 5, 1, 3, 0, 2, 4, 9, 2, 2, 0, 4];
        let window = g.values("windows", &[3, 2, 2], Data::U32(window))?;
        let options = AttentionOptions::new(Keys::Windows(window)).scale(0.9);
        let y = g.attention(x[0], x[1], x[2], &options)?;
        Ok(g.activation(y, Activation::Tanh))
    });
    // One tensor as queries, keys and values, and all turned by their positions.
    gradient_check(&[&[4, 2, 2, 4]], |g, x| {
        let table = g.rotary_table(4, 4, 10.0)?;
        let positions = g.positions(4, 2)?;
        let turned = g.rotary(x[0], table, positions)?;
        let y = g.attention(turned, turned, turned, &AttentionOptions::causal())?;
        let z = g.attention(x[0], turned, x[0], &AttentionOptions::new(Keys::All))?;
        g.multiply(y, z)
    });
}

/// Attention of one sample as products and a softmax, heads one by one; keys past a query's
/// position have scores far below the others.
fn composed(g: &mut Graph, [q, k, v]: [Tensor; 3]) -> Result<Tensor> {
    let (&[queries, 1, heads, size], &[keys, 1, groups, _]) = (g.shape(q), g.shape(k)) else {
        return Err(Error::shape("composed", "one sample"));
    };
    let below = |t: usize, s: usize| if s + queries > t + keys { -1e9 } else { 0.0 };
    let mask = (0..queries * keys).map(|i| below(i / keys, i % keys)).collect();
    let mask = g.values("mask", &[queries, keys], Data::F32(mask))?;
    let mut parts = Vec::new();
    for head in 0..heads {
        let group = head / (heads / groups);
        let cut = |g: &mut Graph, x, length, at: usize| {
            let part = g.slice(x, 2, at..at + 1)?;
            g.reshape(part, &[length, size])
        };
        let q = cut(g, q, queries, head)?;
        let (k, v) = (cut(g, k, keys, group)?, cut(g, v, keys, group)?);
        let k = g.transpose(k, 0)?;
        let scores = g.matmul(q, k)?;
        let scores = g.scale(scores, 1.0 / (size as f32).sqrt());
        let scores = g.add(scores, mask)?;
        let shares = g.softmax(scores)?;
        let y = g.matmul(shares, v)?;
        parts.push(g.reshape(y, &[queries, 1, 1, size])?);
    }
    g.concat(&parts, 2)
}

/// y and the gradients of q, k and v.
fn results(
    device: &Device,
    shapes: [&[usize]; 3],
    record: impl Fn(&mut Graph, [Tensor; 3]) -> Result<Tensor>,
) -> [Vec<f64>; 4] {
    let mut g = graph(device);
    let x = shapes.map(|shape| g.input("x", shape, Element::F32));
    let y = record(&mut g, x).unwrap();
    g.keep(y);
    let seed = g.input("dy", shapes[0], Element::F32);
    let (mut plan, gradients) = g.gradients(&[(y, seed)], &Trainable::All, &x).unwrap();
    for (i, tensor) in x.into_iter().chain([seed]).enumerate() {
        let shape = shapes[i % 3];
        let values = floats(shape.iter().product(), 1.0, i as u32 + 1);
        plan.write(tensor, &Data::F32(values)).unwrap();
    }
    plan.run(1).unwrap();
    let read = |plan: &mut Plan, tensor| plan.read_f64(tensor).unwrap();
    let gradients = [0, 1, 2].map(|i| read(&mut plan, gradients[i].unwrap()));
    let [dq, dk, dv] = gradients;
    [read(&mut plan, y), dq, dk, dv]
}

/// Largest difference relative to the largest magnitude.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let pairs = found.iter().zip(expected);
    pairs.map(|(a, b)| (a - b).abs() / scale).fold(0.0, |m, e| if e <= m { m } else { e })
}

fn causal(g: &mut Graph, [q, k, v]: [Tensor; 3]) -> Result<Tensor> {
    g.attention(q, k, v, &AttentionOptions::causal())
}

#[test]
fn it_is_what_products_and_a_softmax_give() {
    for shapes in [[&[9usize, 1, 4, 8][..], &[9, 1, 2, 8]], [&[3, 1, 2, 12], &[10, 1, 2, 12]]] {
        let shapes = [shapes[0], shapes[1], shapes[1]];
        let device = Device::reference_f64();
        let expected = results(&device, shapes, composed);
        let found = results(&device, shapes, causal);
        for (found, expected) in found.iter().zip(&expected) {
            assert!(error(found, expected) < 1e-12);
        }
    }
}

#[test]
fn a_thousand_positions_come_out_as_in_double_precision() {
    let shapes: [&[usize]; 3] = [&[1024, 1, 4, 64], &[1024, 1, 2, 64], &[1024, 1, 2, 64]];
    let expected = results(&Device::reference_f64(), shapes, causal);
    for (name, device) in software().iter().take(1).chain([&("cpu", Device::cpu())]) {
        let found = results(device, shapes, causal);
        for (what, (found, expected)) in
            ["y", "dq", "dk", "dv"].iter().zip(found.iter().zip(&expected))
        {
            let error = error(found, expected);
            assert!(error < 2e-5, "{name} {what}: {error:e}");
        }
    }
}

#[test]
fn wrong_shapes_and_numbers_are_refused() {
    let mut g = graph(&Device::cpu());
    let mut input = |shape: &[usize]| g.input("x", shape, Element::F32);
    let [q, k, odd] = [[3, 2, 4, 8], [5, 2, 2, 8], [5, 2, 3, 8]].map(|shape| input(&shape));
    let (long, six) = (input(&[5, 2, 2, 132]), input(&[3, 2, 4, 6]));
    let words = g.input("words", &[3, 2], Element::U32);
    let options = AttentionOptions::causal();
    let message = g.attention(q, k, odd, &options).unwrap_err().to_string();
    let expected = "attention: q [3, 2, 4, 8], k [5, 2, 2, 8], v [5, 2, 3, 8]: expected k and v \
                    alike, q's batch and head, and heads that divide q's";
    assert_eq!(message, expected);
    for (q, k) in [(q, odd), (long, long), (six, six), (words, words)] {
        assert!(g.attention(q, k, k, &options).is_err());
    }
    let message = g.attention(k, q, q, &options).unwrap_err().to_string();
    assert!(message.contains("heads that divide"), "{message}");
    let one = g.input("x", &[3, 2, 2, 8], Element::F32);
    let message = g.attention(k, one, one, &options).unwrap_err().to_string();
    assert_eq!(message, "causal attention: 5 queries after 3 keys");
    let message = g.attention(q, k, k, &options.scale(f32::NAN)).unwrap_err().to_string();
    assert_eq!(message, "attention's scale is NaN, expected a finite number");
    let windows = AttentionOptions::new(Keys::Windows(words));
    let message = g.attention(q, k, k, &windows).unwrap_err().to_string();
    assert_eq!(message, "attention: windows [3, 2], expected [3, 2, 2]");

    assert!(g.rotary_table(4, 7, 10.0).is_err() && g.rotary_table(4, 8, 0.0).is_err());
    let table = g.rotary_table(3, 8, 10.0).unwrap();
    assert!(g.rotary(six, table, words).is_err() && g.rotary(q, q, words).is_err());
    let short = g.rotary_table(2, 8, 10.0).unwrap();
    let positions = g.positions(3, 2).unwrap();
    assert!(g.rotary(q, table, positions).is_ok());
    let message = g.rotary(q, short, positions).unwrap_err().to_string();
    assert!(message.contains("below the 2 positions of the table"), "{message}");
    let message = g.store_rows(q, words, q).unwrap_err().to_string();
    assert!(message.contains("expected rows of one length"), "{message}");
}

#[test]
fn rows_are_stored_where_words_say() {
    for (name, device) in software().iter().chain([&("cpu", Device::cpu())]) {
        let mut g = graph(device);
        let x = g.input("x", &[2, 1, 2], Element::F32);
        let place = g.input("place", &[2], Element::U32);
        let cache = g.input("cache", &[3, 1, 2], Element::F32);
        g.store_rows(x, place, cache).unwrap();
        let mut plan = g.forward().unwrap();
        for (values, words) in [([1.0, 2.0, 3.0, 4.0], [2, 9]), ([5.0, 6.0, 7.0, 8.0], [1, 0])] {
            plan.write(x, &Data::F32(values.to_vec())).unwrap();
            plan.write(place, &Data::U32(words.to_vec())).unwrap();
            plan.run(1).unwrap();
        }
        let expected = Data::F32(vec![7.0, 8.0, 5.0, 6.0, 1.0, 2.0]);
        assert_eq!(plan.read(cache).unwrap(), expected, "{name}");
    }
}
