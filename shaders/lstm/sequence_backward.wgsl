// All LSTM time steps backward in one dispatch: a workgroup walks two rows of the batch, an
// invocation a unit, with the gate gradients of the step after in workgroup memory.
// Shapes as in step_backward.wgsl.
struct Params {
    t: u32,
    steps: u32,
    batch: u32,
    hidden: u32,
    cifg: u32,
    w_offset: u32,
    stride: u32,
    has_dy: u32,
    has_dh: u32,
    has_dc: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> gates: array<f32>;
@group(0) @binding(3) var<storage, read> cs: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read> dh_last: array<f32>;
@group(0) @binding(6) var<storage, read> dc_last: array<f32>;
@group(0) @binding(7) var<storage, read_write> dgates: array<f32>;
@group(0) @binding(8) var<storage, read_write> dc: array<f32>;

// The two rows. With an odd batch the last workgroup computes its row twice, the same numbers.
alias Units = vec2<f32>;

// Gate gradients of the step after, gate by gate.
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

    // Gradient of the hidden state that reaches the step from after it, and of the cell state.
    var dh = Units(0.0);
    var carried = Units(0.0);
    if owns && p.has_dh != 0u {
        dh = Units(dh_last[state.x], dh_last[state.y]);
    }
    if owns && p.has_dc != 0u {
        carried = Units(dc_last[state.x], dc_last[state.y]);
    }
    for (var back = 1u; back <= p.steps; back++) {
        let t = p.steps - back;
        workgroupBarrier();
        if owns {
            let step = (group.z * p.steps + t) * p.batch + row;
            if p.has_dy != 0u {
                let at = step * p.hidden + unit;
                dh += Units(dy[at.x], dy[at.y]);
            }
            let at = step * GATES * p.hidden + unit;
            let before = (step + group.z * p.batch) * p.hidden + unit;
            let after = before + p.batch * p.hidden;
            let d = cell_backward(
                gate(at, 0u), gate(at, F), gate(at, G), gate(at, O),
                Units(cs[before.x], cs[before.y]), Units(cs[after.x], cs[after.y]), dh, carried,
            );
            carried = d.c;
            var all = array<Units, GATES>();
            all[0] = d.i;
            all[F] = d.f;
            all[G] = d.g;
            all[O] = d.o;
            for (var q = 0u; q < GATES; q++) {
                next[q * GROUP + unit] = all[q];
                dgates[at.x + q * p.hidden] = all[q].x;
                dgates[at.y + q * p.hidden] = all[q].y;
            }
        }
        workgroupBarrier();
        dh = Units(0.0);
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
        dc[state.x] = carried.x;
        dc[state.y] = carried.y;
    }
}
