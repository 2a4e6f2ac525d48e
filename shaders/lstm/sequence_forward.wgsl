// All LSTM time steps in one dispatch: a workgroup walks two rows of the batch, an invocation
// a unit, with h in workgroup memory and c in a register. Shapes as in step_forward.wgsl.
struct Params {
    t: u32,
    steps: u32,
    batch: u32,
    hidden: u32,
    cifg: u32,
    w_offset: u32,
    b_offset: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weights: array<Wide>;
@group(0) @binding(2) var<storage, read_write> hs: array<f32>;
@group(0) @binding(3) var<storage, read_write> cs: array<f32>;
@group(0) @binding(4) var<storage, read_write> gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// The two rows. With an odd batch the last workgroup computes its row twice, the same numbers.
alias Units = vec2<f32>;

var<workgroup> h: array<Units, GROUP>;

fn bias(flat: u32, gate: u32, unit: u32) -> f32 {
    let at = flat + p.b_offset + gate * p.hidden + unit;
    return part(weights[at / WIDE], at % WIDE);
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
    var c = Units(0.0);
    if owns {
        for (var q = 0u; q < GATES; q++) {
            biases[q] = bias(flat, q, unit);
        }
        let start = (group.z * (p.steps + 1u) * p.batch + row) * p.hidden + unit;
        c = Units(cs[start.x], cs[start.y]);
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
            for (var q = 0u; q < GATES; q++) {
                let place = at + q * p.hidden;
                sums[q] += Units(gates[place.x], gates[place.y]) + biases[q];
            }
            let cell = cell_forward(sums[0], sums[F], sums[G], sums[O], c);
            c = cell.c;
            h[unit] = cell.h;
            sums[0] = cell.i;
            sums[F] = cell.f;
            sums[G] = cell.g;
            sums[O] = cell.o;
            // Both rows; where they are the same the second write repeats the first.
            for (var i = 0u; i < 2u; i++) {
                for (var q = 0u; q < GATES; q++) {
                    gates[at[i] + q * p.hidden] = sums[q][i];
                }
                let after = (step[i] + (group.z + 1u) * p.batch) * p.hidden + unit;
                cs[after] = cell.c[i];
                hs[after] = cell.h[i];
                y[step[i] * p.hidden + unit] = cell.h[i];
            }
        }
        workgroupBarrier();
    }
}
