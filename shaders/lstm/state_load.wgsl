// Puts an initial state, or zeros, into slot 0. Shapes: h, c [R, n], hs, cs [R, T+1, n].
struct Params {
    n: u32,
    steps: u32,
    zero: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> h: array<f32>;
@group(0) @binding(2) var<storage, read> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> hs: array<f32>;
@group(0) @binding(4) var<storage, read_write> cs: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let slot = group.z * (p.steps + 1u) * p.n + i;
    if p.zero != 0u {
        hs[slot] = 0.0;
        cs[slot] = 0.0;
    } else {
        hs[slot] = h[group.z * p.n + i];
        cs[slot] = c[group.z * p.n + i];
    }
}
