// Activations by number; the same as shaders/src/activation.rs.
fn sigmoid(x: f32) -> f32 {
    // exp of a negative argument only: no overflow for any x.
    let e = exp(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn tanh_safe(x: f32) -> f32 {
    // Some drivers' tanh overflows past 40. A clamp could hide a NaN.
    let above = select(x, -15.0, x < -15.0);
    return tanh(select(above, 15.0, x > 15.0));
}

fn activate(kind: u32, x: f32) -> f32 {
    switch kind {
        case 1u: { return select(x, 0.0, x <= 0.0); }
        case 2u: { return sigmoid(x); }
        case 3u: { return tanh_safe(x); }
        case 4u: { return select(0.01 * x, x, x > 0.0); }
        case 5u: {
            return 0.5 * x * (1.0 + tanh_safe(0.7978845608 * (x + 0.044715 * x * x * x)));
        }
        default: { return x; }
    }
}

// Derivative at the input x with output y = activate(kind, x).
fn activate_gradient(kind: u32, x: f32, y: f32) -> f32 {
    switch kind {
        case 1u: { return select(1.0, 0.0, x <= 0.0); }
        case 2u: { return y * (1.0 - y); }
        case 3u: { return 1.0 - y * y; }
        case 4u: { return select(0.01, 1.0, x > 0.0); }
        case 5u: {
            let t = tanh_safe(0.7978845608 * (x + 0.044715 * x * x * x));
            let inner = 0.7978845608 * (1.0 + 0.134145 * x * x);
            return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner;
        }
        default: { return 1.0; }
    }
}
