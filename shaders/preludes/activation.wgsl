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

// The share of the normal distribution past |x| over e^(-x²/2): a fit in t = 1 / (1 + 0.21 |x|) up
// to 14, relative error 2e-8.
fn normal_past(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.21 * abs(x));
    var q = fma(t, -0.0716562772, 0.283588417);
    q = fma(t, q, -0.330253085);
    q = fma(t, q, 0.349400679);
    q = fma(t, q, -0.0939249891);
    q = fma(t, q, 0.12487264);
    q = fma(t, q, 0.0691921909);
    q = fma(t, q, 0.0850688552);
    return t * fma(t, q, 0.0837115758);
}

fn activate(kind: u32, x: f32) -> f32 {
    switch kind {
        case 1u: { return select(x, 0.0, x <= 0.0); }
        case 2u: { return sigmoid(x); }
        case 3u: { return tanh_safe(x); }
        case 4u: { return select(0.01 * x, x, x > 0.0); }
        case 5u: {
            let past = normal_past(x) * exp(-0.5 * x * x);
            return x * select(1.0 - past, past, x < 0.0);
        }
        case 6u: {
            return 0.5 * x * (1.0 + tanh_safe(0.7978845608 * (x + 0.044715 * x * x * x)));
        }
        case 7u: { return x * sigmoid(x); }
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
            let density = exp(-0.5 * x * x);
            let past = normal_past(x) * density;
            return select(1.0 - past, past, x < 0.0) + 0.3989422804 * x * density;
        }
        case 6u: {
            let t = tanh_safe(0.7978845608 * (x + 0.044715 * x * x * x));
            let inner = 0.7978845608 * (1.0 + 0.134145 * x * x);
            return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner;
        }
        case 7u: {
            let s = sigmoid(x);
            return s * (1.0 + x * (1.0 - s));
        }
        default: { return 1.0; }
    }
}
