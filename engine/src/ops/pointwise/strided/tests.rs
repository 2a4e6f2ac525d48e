use super::*;
use crate::ops::testing::gradient_check;
use crate::{Arena, Device, Init, Parameters};

fn graph() -> Graph {
    let mut parameters = Parameters::new();
    parameters.add("w", &[1], Init::Zeros).unwrap();
    Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap())
}

#[test]
fn gradients_match_finite_differences() {
    gradient_check(&[&[2, 3, 2], &[3, 1], &[2, 1, 4]], |g, x| {
        let turned = g.permute(x[0], &[2, 0, 1])?;
        let flipped = g.flip(turned, 2)?;
        // [2, 2, 3] with [3, 1] and [2, 1, 4]: [2, 2, 3] padded to [2, 3, 4].
        let padded = g.pad(flipped, 1, [0, 1])?;
        let padded = g.pad(padded, 2, [1, 0])?;
        let product = g.multiply(padded, x[1])?;
        let sum = g.add(x[2], product)?;
        let squares = g.multiply(sum, sum)?;
        let means = g.reduce(squares, &[0, 2], Reduction::Mean)?;
        let most = g.reduce(squares, &[1], Reduction::Max)?;
        let most = g.reshape(most, &[8])?;
        g.concat(&[means, most], 0)
    });
}

#[test]
fn a_choice_has_the_gradient_of_what_was_chosen() {
    gradient_check(&[&[2, 3], &[2, 3]], |g, x| {
        let condition = g.values("condition", &[2, 3], Data::U32(vec![1, 0, 0, 2, 1, 0]))?;
        let chosen = g.select(condition, x[0], x[1])?;
        g.multiply(chosen, chosen)
    });
}

#[test]
fn all_axes_are_one_number_and_axes_of_one_element_are_kept_or_left_out() {
    let mut g = graph();
    let x = g.input("x", &[2, 1, 3], Element::F32);
    let all = g.reduce(x, &[2, 0, 1], Reduction::Sum).unwrap();
    assert_eq!(g.shape(all), [1]);
    let some = g.reduce(x, &[0], Reduction::Sum).unwrap();
    assert_eq!(g.shape(some), [1, 3]);
    assert_eq!(broadcast(&[4, 1, 3], &[2, 1]), Some(vec![4, 2, 3]));
    assert_eq!(broadcast(&[3], &[2, 1]), Some(vec![2, 3]));
    assert_eq!(broadcast(&[3], &[2]), None);
}

#[test]
fn wrong_shapes_are_refused() {
    let mut g = graph();
    let (a, b) = (g.input("a", &[3, 4], Element::F32), g.input("b", &[4], Element::F32));
    let words = g.input("words", &[3, 4], Element::U32);
    for (error, expected) in [
        (g.permute(a, &[0, 0]), "permute: [3, 4] in the order [0, 0]"),
        (g.flip(a, 2), "flip: axis 2 of [3, 4]"),
        (g.pad(a, 2, [1, 1]), "pad: axis 2 of [3, 4]"),
        (g.broadcast_to(a, &[4]), "broadcast_to: [3, 4] to [4]"),
        (g.broadcast_to(b, &[4, 3]), "broadcast_to: [4] to [4, 3]"),
        (g.reduce(a, &[1, 1], Reduction::Sum), "reduce: axes [1, 1] of [3, 4]"),
        (g.reduce(a, &[], Reduction::Sum), "reduce: axes [] of [3, 4]"),
        (g.select(words, a, b), "select: condition [3, 4], [3, 4] and [4], expected one shape"),
    ] {
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
    assert!(g.select(a, a, a).unwrap_err().to_string().contains("expected U32"));
    let many = g.input("many", &[2, 2, 2, 2, 2], Element::F32);
    let error = g.permute(many, &[4, 3, 2, 1, 0]).unwrap_err().to_string();
    assert!(error.contains("5 axes that can't be joined"), "{error}");
}
