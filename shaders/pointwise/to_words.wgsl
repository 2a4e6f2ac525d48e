// y = each float without its fraction: 0 below 0 and for what is no number, and 2^32 − 1 from 2^32 on.
// Shapes: x, y [R, n].
struct Params {
    n: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let value = x[group.z * p.n + i];
    // Conversions of what doesn't fit differ from device to device.
    var word = 0u;
    if value >= 4294967296.0 {
        word = 0xffffffffu;
    } else if value > 0.0 {
        word = u32(value);
    }
    y[group.z * p.n + i] = word;
}
