// total += Σ over clients of round(x · weight · 2^fraction_bits), 64-bit integers.
// Shapes: x [R, clients, stride], weights [R, clients], total [R, n, 2], low word first.
struct Params {
    n: u32,
    stride: u32,
    clients: u32,
    fraction_bits: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<u32>;
@group(0) @binding(3) var<storage, read_write> total: array<vec2<u32>>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.n + i;
    var sum = total[at];
    for (var c = group.z * p.clients; c < (group.z + 1u) * p.clients; c += 1u) {
        sum = add64(sum, fixed64(x[c * p.stride + i], weights[c], p.fraction_bits));
    }
    total[at] = sum;
}
