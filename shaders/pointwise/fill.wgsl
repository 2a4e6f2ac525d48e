// y[offset .. offset + n] = value in each replica's `stride` elements. Shape: y [R, stride].
struct Params {
    n: u32,
    offset: u32,
    stride: u32,
    value: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    y[group.z * p.stride + p.offset + i] = p.value;
}
