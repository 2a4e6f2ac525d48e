// What the moments of Adam share.

// 1 − eˣ for x ≤ 0. Near zero the difference would cancel, so the series is summed there: its
// first dropped term is below 2e-8 of the result for x > −1/2.
fn one_minus_exp(x: f32) -> f32 {
    let series = 1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0
        * (1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0))))));
    return select(1.0 - exp(x), -x * series, x > -0.5);
}

struct Moments {
    first: vec4<f32>,
    second: vec4<f32>,
}

// The moments after a gradient. The first step starts from zero, whatever an earlier training left
// in the buffers.
fn moments(g: vec4<f32>, old: Moments, fresh: vec2<f32>, first: bool) -> Moments {
    let m = select(old.first, vec4<f32>(0.0), vec4<bool>(first));
    let v = select(old.second, vec4<f32>(0.0), vec4<bool>(first));
    // What is past the largest number stays there; ∞ - ∞ would be no number.
    let next = select(v + fresh.y * (g * g - v), v, v >= vec4<f32>(3.4e38));
    return Moments(m + fresh.x * (g - m), next);
}
