// sum (+)= Σ over clients of weight · scale · code, one invocation a word of 16 codes.
// Shapes: codes [R, clients, n / 16], segments [tensors + 1], scales [tensors], those of
// client c of replica r at (r · clients + c) · scales_stride, weights [R, clients],
// sum [R, stride].
struct Params {
    n: u32,
    stride: u32,
    tensors: u32,
    clients: u32,
    scales_stride: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(2) var<storage, read> segments: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> sum: array<vec4<f32>>;

// The four codes of a byte as floats; 3 is no code and counts as 0.
fn decode(byte: u32) -> vec4<f32> {
    let pairs = (vec4<u32>(byte) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u);
    return vec4<f32>(pairs & vec4<u32>(1u)) - vec4<f32>(pairs >> vec4<u32>(1u));
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let word = linear_index(group, local);
    let words = p.n / 16u;
    if word >= words {
        return;
    }
    let tensor = tensor_of(16u * word);
    let at = group.z * (p.stride / 4u) + 4u * word;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    if p.accumulate != 0u {
        s0 = sum[at];
        s1 = sum[at + 1u];
        s2 = sum[at + 2u];
        s3 = sum[at + 3u];
    }
    for (var c = group.z * p.clients; c < (group.z + 1u) * p.clients; c += 1u) {
        let packed = codes[c * words + word];
        let step = weights[c] * scales[c * p.scales_stride + tensor];
        s0 += step * decode(packed);
        s1 += step * decode(packed >> 8u);
        s2 += step * decode(packed >> 16u);
        s3 += step * decode(packed >> 24u);
    }
    sum[at] = s0;
    sum[at + 1u] = s1;
    sum[at + 2u] = s2;
    sum[at + 3u] = s3;
}
