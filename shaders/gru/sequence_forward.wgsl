// All GRU time steps in one dispatch: a workgroup walks two rows of the batch, an invocation a unit,
// with h in workgroup memory. Shapes as in step_forward.wgsl.
struct Params {
    t: u32,
    steps: u32,
    batch: u32,
    hidden: u32,
    w_offset: u32,
    b_offset: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weights: array<Wide>;
@group(0) @binding(2) var<storage, read_write> hs: array<f32>;
@group(0) @binding(3) var<storage, read_write> gates: array<f32>;
@group(0) @binding(4) var<storage, read_write> recurrent: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// The two rows. With an odd batch the last workgroup computes its row twice, the same numbers.
alias Units = vec2<f32>;

var<workgroup> h: array<Units, GROUP>;

fn bias(flat: u32, gate: u32, unit: u32) -> f32 {
    let at = flat + p.b_offset + gate * p.hidden + unit;
    return part(weights[at / WIDE], at % WIDE);
}

fn gate(at: vec2<u32>, position: u32) -> Units {
    let place = at + position * p.hidden;
    return Units(gates[place.x], gates[place.y]);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) unit: u32) {
    let row = vec2<u32>(2u * group.x, min(2u * group.x + 1u, p.batch - 1u));
    let owns = unit < p.hidden;
    let flat = group.z * p.stride;
    let width = p.hidden / WIDE;
    let w = (flat + p.w_offset) / WIDE + unit * width;
    let gate_width = p.hidden * width;

    var biases: array<f32, GATES>;
    if owns {
        for (var q = 0u; q < GATES; q++) {
            biases[q] = bias(flat, q, unit);
        }
        let start = (group.z * (p.steps + 1u) * p.batch + row) * p.hidden + unit;
        h[unit] = Units(hs[start.x], hs[start.y]);
    }
    workgroupBarrier();
    for (var t = 0u; t < p.steps; t++) {
        var sums = array<Units, GATES>();
        if owns {
            for (var k = 0u; k < width; k++) {
                var parts = array<Wide, GATES>();
                for (var q = 0u; q < GATES; q++) {
                    parts[q] = weights[w + q * gate_width + k];
                }
                for (var i = 0u; i < WIDE; i++) {
                    let x = h[k * WIDE + i];
                    for (var q = 0u; q < GATES; q++) {
                        sums[q] = fma(Units(part(parts[q], i)), x, sums[q]);
                    }
                }
            }
        }
        workgroupBarrier();
        if owns {
            let step = (group.z * p.steps + t) * p.batch + row;
            let at = step * GATES * p.hidden + unit;
            let own = sums[2] + biases[2];
            let cell = cell_forward(
                sums[0] + gate(at, 0u) + biases[0],
                sums[1] + gate(at, 1u) + biases[1],
                gate(at, 2u),
                own,
                h[unit],
            );
            h[unit] = cell.h;
            // Both rows; where they are the same the second write repeats the first.
            for (var i = 0u; i < 2u; i++) {
                gates[at[i]] = cell.r[i];
                gates[at[i] + p.hidden] = cell.z[i];
                gates[at[i] + 2u * p.hidden] = cell.n[i];
                recurrent[step[i] * p.hidden + unit] = own[i];
                hs[(step[i] + (group.z + 1u) * p.batch) * p.hidden + unit] = cell.h[i];
                y[step[i] * p.hidden + unit] = cell.h[i];
            }
        }
        workgroupBarrier();
    }
}
