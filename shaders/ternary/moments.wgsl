// Partial sums a tensor: lane j takes the elements j, j + lanes, ... of its tensor.
// Shapes: x, residual [R, stride], segments [tensors + 1], lengths [tensors],
// thresholds [R, tensors], partials [R, tensors, lanes, 4].
struct Params {
    tensors: u32,
    stride: u32,
    longest: u32,
    lanes: u32,
    feedback: u32,
    above: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read> segments: array<u32>;
@group(0) @binding(4) var<storage, read> lengths: array<u32>;
@group(0) @binding(5) var<storage, read> thresholds: array<f32>;
@group(0) @binding(6) var<storage, read_write> partials: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = group.x * GROUP + local;
    let tensor = group.y;
    if lane >= p.lanes {
        return;
    }
    let row = group.z * p.tensors + tensor;
    let start = group.z * p.stride + segments[tensor];
    let length = lengths[tensor];
    var threshold = 0.0;
    if p.above != 0u {
        threshold = thresholds[row];
    }
    // Largest magnitude, sum of magnitudes, sum, sum of squares; or, above the threshold,
    // sum of magnitudes and count.
    var partial = vec4<f32>(0.0);
    for (var i = lane; i < length; i += p.lanes) {
        var raw = x[start + i];
        if p.feedback != 0u {
            raw += residual[start + i];
        }
        let v = finite_or_zero(vec4<f32>(raw)).x;
        let magnitude = abs(v);
        if p.above == 0u {
            partial.x = max(partial.x, magnitude);
            partial += vec4<f32>(0.0, magnitude, v, v * v);
        } else if magnitude > threshold {
            partial += vec4<f32>(magnitude, 1.0, 0.0, 0.0);
        }
    }
    partials[row * p.lanes + lane] = partial;
}
