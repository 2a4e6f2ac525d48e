// What the partial sums of `ternary/moments` say about a tensor. Needs the parameters and
// bindings of `ternary/scale`.
fn merge(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    // The first is a maximum, unless these are the sums above the thresholds.
    let sum = a + b;
    return vec4<f32>(select(max(a.x, b.x), sum.x, p.kind == 2u), sum.yzw);
}

fn write_scale(row: u32, length: u32, total: vec4<f32>) {
    let count = max(f32(length), 1.0);
    switch p.kind {
        case 0u: {
            var scale = total.x;
            if p.factor > 0.0 {
                let mean = total.z / count;
                let square = total.w / count;
                let variance = max(square - mean * mean, 0.0);
                // Around a mean that is larger, as that of a tensor of equal elements, the
                // deviation says nothing of how large they are.
                let centered = mean * mean <= variance;
                scale = min(scale, p.factor * sqrt(select(square, variance, centered)));
            }
            scales[row] = scale;
            thresholds[row] = 0.0;
        }
        case 1u: {
            thresholds[row] = p.factor * (total.y / count);
        }
        default: {
            scales[row] = total.x / max(total.y, 1.0);
        }
    }
}
