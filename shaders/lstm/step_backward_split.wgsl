// One LSTM time step backward with the sum over k split across LANES invocations: a workgroup
// computes every gate gradient of UNITS units in ROWS rows. Shapes as in step_backward.wgsl.
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

alias Units = f32;

const SUMS: u32 = ROWS * UNITS;
// One word more than the sums, so that the lanes write to different memory banks.
const PITCH: u32 = SUMS + 1u;
var<workgroup> sums: array<f32, LANES * PITCH>;

@compute @workgroup_size(LANES * UNITS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local / UNITS;
    let width = GATES * p.hidden;
    let first = group.y * ROWS;
    let here = (group.z * p.steps + p.t) * p.batch;
    let last = p.t + 1u == p.steps;

    var acc: array<f32, ROWS>;
    let unit = group.x * UNITS + local % UNITS;
    if unit < p.hidden && !last {
        let w = group.z * p.stride + p.w_offset + unit;
        for (var k = lane; k < width; k += LANES) {
            let weight = weights[w + k * p.hidden];
            for (var b = 0u; b < ROWS; b++) {
                let next = here + p.batch + min(first + b, p.batch - 1u);
                acc[b] = fma(weight, dgates[next * width + k], acc[b]);
            }
        }
    }
    for (var b = 0u; b < ROWS; b++) {
        sums[lane * PITCH + b * UNITS + local % UNITS] = acc[b];
    }
    workgroupBarrier();

    let row = first + local / UNITS;
    if local < SUMS && row < p.batch && unit < p.hidden {
        var dh = sums[local];
        for (var i = 1u; i < LANES; i++) {
            dh += sums[i * PITCH + local];
        }
        let step = here + row;
        let state = (group.z * p.batch + row) * p.hidden + unit;
        var carried = 0.0;
        if !last {
            carried = dc[state];
        } else {
            if p.has_dh != 0u {
                dh = dh_last[state];
            }
            if p.has_dc != 0u {
                carried = dc_last[state];
            }
        }
        if p.has_dy != 0u {
            dh += dy[step * p.hidden + unit];
        }
        let at = step * width + unit;
        let before = (step + group.z * p.batch) * p.hidden + unit;
        let d = cell_backward(
            gates[at], gates[at + F * p.hidden], gates[at + G * p.hidden],
            gates[at + O * p.hidden],
            cs[before], cs[before + p.batch * p.hidden], dh, carried,
        );
        dgates[at] = d.i;
        if CIFG == 0u {
            dgates[at + F * p.hidden] = d.f;
        }
        dgates[at + G * p.hidden] = d.g;
        dgates[at + O * p.hidden] = d.o;
        dc[state] = d.c;
    }
}
