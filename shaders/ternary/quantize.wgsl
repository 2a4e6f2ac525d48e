// v = x (+ residual) to codes {-1, 0, +1}, 16 a word, one invocation a word; what a code
// leaves goes to the residual. Shapes: x, residual [R, stride], segments [tensors + 1],
// scales, thresholds [tensors], those of replica r at r · scales_stride, codes [R, n / 16].
struct Params {
    n: u32,
    stride: u32,
    tensors: u32,
    scales_stride: u32,
    threshold: u32,
    feedback: u32,
    step: u32,
    salt: u32,
    seed: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> residual: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> segments: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read> thresholds: array<f32>;
@group(0) @binding(6) var<storage, read_write> codes: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let word = linear_index(group, local);
    if word >= p.n / 16u {
        return;
    }
    let row = group.z * p.scales_stride + tensor_of(16u * word);
    // Only a normal positive number is a scale.
    var scale = scales[row];
    let exponent = bitcast<u32>(scale) >> 23u;
    if exponent == 0u || exponent >= 0xffu {
        scale = 0.0;
    }
    var packed = 0u;
    for (var quarter = 0u; quarter < 4u; quarter += 1u) {
        let at = group.z * (p.stride / 4u) + 4u * word + quarter;
        var v = normal_or_zero(x[at]);
        if p.feedback != 0u {
            v = normal_or_zero(v + normal_or_zero(residual[at]));
        }
        v = finite_or_zero(v);
        let magnitude = abs(v);
        var fires = vec4<bool>();
        if p.threshold != 0u {
            fires = magnitude > vec4<f32>(thresholds[row]);
        } else {
            // P(fires) = |v| / scale: always from the scale on, never at 0.
            let key = vec4<u32>(4u * word + quarter, p.step, p.salt + group.z, p.seed);
            let u = vec4<f32>(pcg4d(key) >> vec4<u32>(8u)) * 5.9604644775390625e-8;
            fires = u * scale < magnitude;
        }
        fires = fires & vec4<bool>(scale > 0.0);
        let negative = v < vec4<f32>(0.0);
        if p.feedback != 0u {
            let decoded = select(vec4<f32>(scale), vec4<f32>(-scale), negative);
            residual[at] = normal_or_zero(v - select(vec4<f32>(0.0), decoded, fires));
        }
        let one = select(vec4<u32>(1u), vec4<u32>(2u), negative);
        let code = select(vec4<u32>(0u), one, fires) << vec4<u32>(0u, 2u, 4u, 6u);
        packed |= (code.x | code.y | code.z | code.w) << (8u * quarter);
    }
    codes[group.z * (p.n / 16u) + word] = packed;
}
