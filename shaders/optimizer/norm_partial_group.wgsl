// Sum of squares of each chunk of CHUNK elements of [offset, offset + n). One workgroup a
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

var<workgroup> sums: array<f32, GROUP>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunk = group.y * 65535u + group.x;
    let start = (group.z * p.stride + p.offset) / 4u;
    let end = min((chunk + 1u) * CHUNK / 4u, (p.n + 3u) / 4u);
    var sum = vec4<f32>(0.0);
    for (var i = chunk * CHUNK / 4u + local; i < end; i += GROUP) {
        let g = select(vec4<f32>(0.0), gradients[start + i], lanes(i, p.n));
        sum += g * g;
    }
    sums[local] = sum.x + sum.y + sum.z + sum.w;
    for (var half = GROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local] += sums[local + half];
        }
    }
    // The folded grid may hold a few groups past the last chunk.
    if local == 0u && chunk * CHUNK < p.n {
        partial[group.z * p.partial_stride + p.partial_offset + chunk] = sums[0];
    }
}
