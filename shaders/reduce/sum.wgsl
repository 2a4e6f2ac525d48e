// out[q] = scale · Σ of part q of x. x [R, n], out [R, parts]. One invocation a part; no
// workgroup memory.
struct Params {
    n: u32,
    parts: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let part = linear_index(group, local);
    if part >= p.parts {
        return;
    }
    let length = (p.n + p.parts - 1u) / p.parts;
    let end = min((part + 1u) * length, p.n);
    let base = group.z * p.n;
    // Blocks of four chains: rounding errors grow with a chain's length.
    var total = vec4<f32>();
    for (var first = min(part * length, p.n); first < end; first += 64u) {
        let last = min(first + 64u, end);
        var sums = vec4<f32>();
        var at = first;
        for (; at + 4u <= last; at += 4u) {
            let i = base + at;
            sums += vec4<f32>(x[i], x[i + 1u], x[i + 2u], x[i + 3u]);
        }
        for (; at < last; at++) {
            sums.x += x[base + at];
        }
        total += sums;
    }
    out[group.z * p.parts + part] = p.scale * ((total.x + total.y) + (total.z + total.w));
}
