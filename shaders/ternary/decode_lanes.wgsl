// mean (+)= scale · weight · (lane - clients) from summed lanes; four elements an invocation.
// Shapes: lanes [R, words], segments [tensors + 1], scales [tensors], those of replica r at
// r · scales_stride, mean [R, stride].
struct Params {
    n: u32,
    stride: u32,
    words: u32,
    bits: u32,
    tensors: u32,
    scales_stride: u32,
    clients: u32,
    weight: f32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> lanes: array<u32>;
@group(0) @binding(2) var<storage, read> segments: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read_write> mean: array<vec4<f32>>;

// The lane of element i, less one a client.
fn signed_lane(first: u32, i: u32) -> f32 {
    let per_word = 32u / p.bits;
    let lane = (lanes[first + i / per_word] >> (i % per_word * p.bits)) & ((1u << p.bits) - 1u);
    return f32(i32(lane) - i32(p.clients));
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = linear_index(group, local);
    if quad >= p.n / 4u {
        return;
    }
    let i = 4u * quad;
    let first = group.z * p.words;
    let step = p.weight * scales[group.z * p.scales_stride + tensor_of(i)];
    var value = step * vec4<f32>(
        signed_lane(first, i),
        signed_lane(first, i + 1u),
        signed_lane(first, i + 2u),
        signed_lane(first, i + 3u),
    );
    let at = group.z * (p.stride / 4u) + quad;
    if p.accumulate != 0u {
        value += mean[at];
    }
    mean[at] = value;
}
