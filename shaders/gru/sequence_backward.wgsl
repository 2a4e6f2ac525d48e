// All GRU time steps backward in one dispatch: a workgroup walks two rows of the batch, an
// invocation a unit, with the gate gradients of the step after in workgroup memory. Shapes as in
// step_backward.wgsl.
struct Params {
    t: u32,
    steps: u32,
    batch: u32,
    hidden: u32,
    w_offset: u32,
    stride: u32,
    has_dy: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> gates: array<f32>;
@group(0) @binding(3) var<storage, read> recurrent: array<f32>;
@group(0) @binding(4) var<storage, read> hs: array<f32>;
@group(0) @binding(5) var<storage, read> dy: array<f32>;
@group(0) @binding(6) var<storage, read_write> dgates: array<f32>;
@group(0) @binding(7) var<storage, read_write> drecurrent: array<f32>;
@group(0) @binding(8) var<storage, read_write> carried: array<f32>;

// The two rows. With an odd batch the last workgroup computes its row twice, the same numbers.
alias Units = vec2<f32>;

// Gradients of the recurrent parts of the gates of the step after, gate by gate.
var<workgroup> next: array<Units, GATES * GROUP>;

fn gate(at: vec2<u32>, position: u32) -> Units {
    let place = at + position * p.hidden;
    return Units(gates[place.x], gates[place.y]);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) unit: u32) {
    let row = vec2<u32>(2u * group.x, min(2u * group.x + 1u, p.batch - 1u));
    let owns = unit < p.hidden;
    let w = group.z * p.stride + p.w_offset + unit;
    let state = (group.z * p.batch + row) * p.hidden + unit;

    // Gradient of the hidden state that reaches the step from after it.
    var dh = Units(0.0);
    if owns {
        dh = Units(carried[state.x], carried[state.y]);
    }
    for (var back = 1u; back <= p.steps; back++) {
        let t = p.steps - back;
        workgroupBarrier();
        if owns {
            let step = (group.z * p.steps + t) * p.batch + row;
            let own = step * p.hidden + unit;
            if p.has_dy != 0u {
                dh += Units(dy[own.x], dy[own.y]);
            }
            let at = step * GATES * p.hidden + unit;
            let before = (step + group.z * p.batch) * p.hidden + unit;
            let d = cell_backward(
                gate(at, 0u), gate(at, 1u), gate(at, 2u),
                Units(recurrent[own.x], recurrent[own.y]),
                Units(hs[before.x], hs[before.y]),
                dh,
            );
            dh = d.h;
            next[unit] = d.r;
            next[GROUP + unit] = d.z;
            next[2u * GROUP + unit] = d.q;
            for (var i = 0u; i < 2u; i++) {
                dgates[at[i]] = d.r[i];
                dgates[at[i] + p.hidden] = d.z[i];
                dgates[at[i] + 2u * p.hidden] = d.n[i];
                drecurrent[at[i]] = d.r[i];
                drecurrent[at[i] + p.hidden] = d.z[i];
                drecurrent[at[i] + 2u * p.hidden] = d.q[i];
            }
        }
        workgroupBarrier();
        if owns && t > 0u {
            for (var k = 0u; k < p.hidden; k++) {
                for (var q = 0u; q < GATES; q++) {
                    let weight = weights[w + (q * p.hidden + k) * p.hidden];
                    dh = fma(Units(weight), next[q * GROUP + k], dh);
                }
            }
        }
    }
    if owns {
        carried[state.x] = dh.x;
        carried[state.y] = dh.y;
    }
}
