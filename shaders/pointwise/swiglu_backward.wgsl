// dgate (+)= dy · up · σ(gate) (1 + gate (1 - σ(gate))), dup (+)= dy · gate · σ(gate). Shapes: all
// [R, n].
struct Params {
    n: u32,
    gate_mode: u32,
    up_mode: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gate: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dgate: array<f32>;
@group(0) @binding(5) var<storage, read_write> dup: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.n + i;
    let x = gate[at];
    let s = sigmoid(x);
    if p.gate_mode < 2u {
        var d = dy[at] * up[at] * s * (1.0 + x * (1.0 - s));
        if p.gate_mode == 1u {
            d += dgate[at];
        }
        dgate[at] = d;
    }
    if p.up_mode < 2u {
        var d = dy[at] * x * s;
        if p.up_mode == 1u {
            d += dup[at];
        }
        dup[at] = d;
    }
}
