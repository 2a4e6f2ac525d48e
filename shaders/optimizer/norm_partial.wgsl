// Sum of squares of each chunk of CHUNK elements of [offset, offset + n). One invocation a
// chunk. Shapes: gradients [R, stride], partial [R, partial_stride].
struct Params {
    offset: u32,
    n: u32,
    stride: u32,
    partial_offset: u32,
    partial_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunk = linear_index(group, local);
    if chunk * CHUNK >= p.n {
        return;
    }
    let start = (group.z * p.stride + p.offset) / 4u;
    let end = min((chunk + 1u) * CHUNK / 4u, (p.n + 3u) / 4u);
    var sum = vec4<f32>(0.0);
    for (var i = chunk * CHUNK / 4u; i < end; i++) {
        let g = select(vec4<f32>(0.0), gradients[start + i], lanes(i, p.n));
        sum += g * g;
    }
    partial[group.z * p.partial_stride + p.partial_offset + chunk] =
        sum.x + sum.y + sum.z + sum.w;
}
