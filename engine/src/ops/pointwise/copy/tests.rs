use super::*;
use crate::ops::testing::gradient_check;
use crate::{Arena, Data, Device, Init, Parameters, Trainable};

fn graph() -> Graph {
    let mut parameters = Parameters::new();
    parameters.add("w", &[1], Init::Zeros).unwrap();
    Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap())
}

#[test]
fn gradients_match_finite_differences() {
    gradient_check(&[&[3, 4]], |g, x| {
        let mid = g.tanh(x[0]);
        let scaled = g.scale(mid, -1.5);
        let scalar = g.constant(0.7, &[1]);
        let again = g.scale_by(mid, scalar, 2.0)?;
        let turned = g.transpose(again, 0)?;
        let turned = g.transpose(turned, 0)?;
        g.multiply(scaled, turned)
    });
    gradient_check(&[&[2, 3, 4], &[2, 1, 4]], |g, x| {
        let left = g.tanh(x[0]);
        let joined = g.concat(&[left, x[1], left], 1)?;
        let head = g.slice(joined, 1, 0..4)?;
        let tail = g.slice(joined, 1, 3..7)?;
        let turned = g.transpose(tail, 1)?;
        let turned = g.transpose(turned, 1)?;
        let product = g.multiply(head, turned)?;
        g.slice(product, 2, 1..3)
    });
}

#[test]
fn reversal_keeps_the_values_and_turns_the_gradient() {
    let mut g = graph();
    let x = g.input("x", &[2], Element::F32);
    let y = g.gradient_reversal(x, 0.5);
    g.keep(y);
    let dy = g.input("dy", &[2], Element::F32);
    let (mut plan, gradients) = g.gradients(&[(y, dy)], &Trainable::None, &[x]).unwrap();
    plan.write(x, &Data::F32(vec![3.0, -4.0])).unwrap();
    plan.write(dy, &Data::F32(vec![1.0, 2.0])).unwrap();
    plan.run(1).unwrap();
    assert_eq!(plan.read(y).unwrap(), Data::F32(vec![3.0, -4.0]));
    assert_eq!(plan.read(gradients[0].unwrap()).unwrap(), Data::F32(vec![-0.5, -1.0]));
}

#[test]
fn joined_and_turned_values_are_where_they_belong() {
    let mut g = graph();
    let x = g.input("x", &[2, 3], Element::F32);
    let tail = g.slice(x, 1, 2..3).unwrap();
    let joined = g.concat(&[tail, x], 1).unwrap();
    let turned = g.transpose(joined, 0).unwrap();
    assert_eq!((g.shape(joined), g.shape(turned)), (&[2, 4][..], &[4, 2][..]));
    g.keep(turned);
    let mut plan = g.forward().unwrap();
    plan.write(x, &Data::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])).unwrap();
    plan.run(1).unwrap();
    let expected = vec![3.0, 6.0, 1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
    assert_eq!(plan.read(turned).unwrap(), Data::F32(expected));
}

#[test]
fn wrong_shapes_are_refused() {
    let mut g = graph();
    let (a, b) = (g.input("a", &[3, 4], Element::F32), g.input("b", &[2, 4], Element::F32));
    let message = g.concat(&[a, b], 1).unwrap_err().to_string();
    assert_eq!(message, "concat: [[3, 4], [2, 4]] along axis 1");
    assert!(g.concat(&[a, b], 0).is_ok());
    assert!(g.concat(&[], 0).is_err());
    assert!(g.concat(&[a], 2).is_err());
    let message = g.slice(a, 1, 2..5).unwrap_err().to_string();
    assert_eq!(message, "slice: 2..5 of axis 1 of [3, 4]");
    assert!(g.slice(a, 1, 2..2).is_err());
    assert_eq!(g.transpose(a, 1).unwrap_err().to_string(), "transpose: axis 1 of [3, 4]");
    assert!(g.scale_by(a, b, 1.0).is_err());
}
