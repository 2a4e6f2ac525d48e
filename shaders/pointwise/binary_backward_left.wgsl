// da (+)= dy · ∂y/∂a of pointwise/binary_forward. Shapes: dy, da [R, n], b [R, period].
struct Params {
    n: u32,
    period: u32,
    kind: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> da: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.n + i;
    var g = dy[at];
    if p.kind == 2u {
        g *= b[group.z * p.period + i % p.period];
    }
    if p.accumulate != 0u {
        g += da[at];
    }
    da[at] = g;
}
