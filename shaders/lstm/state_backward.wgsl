// Gradients of the initial state: dh0 (+)= dgates[0]·W_hh, dc0 (+)= dc.
// Shapes: dgates [R, T, B, G·H], dc, dh0, dc0 [R, B, H].
struct Params {
    steps: u32,
    batch: u32,
    hidden: u32,
    cifg: u32,
    w_offset: u32,
    stride: u32,
    accumulate_h: u32,
    accumulate_c: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> dgates: array<f32>;
@group(0) @binding(3) var<storage, read> dc: array<f32>;
@group(0) @binding(4) var<storage, read_write> dh0: array<f32>;
@group(0) @binding(5) var<storage, read_write> dc0: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    let n = p.batch * p.hidden;
    if i >= n {
        return;
    }
    let width = (4u - p.cifg) * p.hidden;
    let w = group.z * p.stride + p.w_offset + i % p.hidden;
    let row = (group.z * p.steps * p.batch + i / p.hidden) * width;
    let at = group.z * n + i;
    var dh = 0.0;
    if p.accumulate_h != 0u {
        dh = dh0[at];
    }
    for (var k = 0u; k < width; k++) {
        dh = fma(dgates[row + k], weights[w + k * p.hidden], dh);
    }
    dh0[at] = dh;
    var d = dc[at];
    if p.accumulate_c != 0u {
        d += dc0[at];
    }
    dc0[at] = d;
}
