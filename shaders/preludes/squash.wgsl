// Sigmoid and tanh of a scalar or vector `Units` that the kernel defines.
fn cell_sigmoid(x: Units) -> Units {
    // exp of a negative argument only: no overflow for any x.
    let e = exp(-abs(x));
    return select(e, Units(1.0), x >= Units(0.0)) / (Units(1.0) + e);
}

fn cell_tanh(x: Units) -> Units {
    // Some drivers' tanh overflows past 40. A clamp could hide a NaN.
    let above = select(x, Units(-15.0), x < Units(-15.0));
    return tanh(select(above, Units(15.0), x > Units(15.0)));
}
