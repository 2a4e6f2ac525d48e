// y[o, j, i, :] (+)= x[o, i, j, :]: swaps two neighboring axes.
// Shapes: x [R, outer, a, b, inner], y [R, outer, b, a, inner].
struct Params {
    outer: u32,
    a: u32,
    b: u32,
    inner: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = linear_index(group, local);
    let n = p.outer * p.a * p.b * p.inner;
    if index >= n {
        return;
    }
    // The index runs over y, so that the writes are next to each other.
    let k = index % p.inner;
    let i = index / p.inner % p.a;
    let j = index / (p.inner * p.a) % p.b;
    let o = index / (p.inner * p.a * p.b);
    let at = group.z * n + index;
    var value = x[group.z * n + ((o * p.a + i) * p.b + j) * p.inner + k];
    if p.accumulate != 0u {
        value += y[at];
    }
    y[at] = value;
}
