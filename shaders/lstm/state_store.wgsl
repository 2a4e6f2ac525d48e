// Copies the state after the last step out of slot T. Shapes: hs, cs [R, T+1, n], h, c [R, n].
struct Params {
    n: u32,
    steps: u32,
    zero: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> hs: array<f32>;
@group(0) @binding(2) var<storage, read> cs: array<f32>;
@group(0) @binding(3) var<storage, read_write> h: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let slot = (group.z * (p.steps + 1u) + p.steps) * p.n + i;
    h[group.z * p.n + i] = hs[slot];
    c[group.z * p.n + i] = cs[slot];
}
