// One LSTM time step with the sum over k split across LANES invocations: a workgroup computes
// every gate of UNITS units in ROWS rows. Shapes as in step_forward.wgsl.
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
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> hs: array<f32>;
@group(0) @binding(3) var<storage, read_write> cs: array<f32>;
@group(0) @binding(4) var<storage, read_write> gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

alias Units = f32;

const TILE: u32 = GATES * UNITS;
const SUMS: u32 = ROWS * TILE;
// One word more than the sums, so that the lanes write to different memory banks.
const PITCH: u32 = SUMS + 1u;
var<workgroup> sums: array<f32, LANES * PITCH>;

@compute @workgroup_size(LANES * TILE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % LANES;
    let q = local / LANES;
    let first = group.y * ROWS;
    let flat = group.z * p.stride;
    let before = (group.z * (p.steps + 1u) + p.t) * p.batch;

    var acc: array<f32, ROWS>;
    let unit = group.x * UNITS + q % UNITS;
    if unit < p.hidden {
        let w = flat + p.w_offset + ((q / UNITS) * p.hidden + unit) * p.hidden;
        for (var k = lane; k < p.hidden; k += LANES) {
            let weight = weights[w + k];
            for (var b = 0u; b < ROWS; b++) {
                let row = before + min(first + b, p.batch - 1u);
                acc[b] = fma(weight, hs[row * p.hidden + k], acc[b]);
            }
        }
    }
    for (var b = 0u; b < ROWS; b++) {
        sums[lane * PITCH + b * TILE + q] = acc[b];
    }
    workgroupBarrier();
    if local < SUMS {
        var sum = sums[local];
        for (var i = 1u; i < LANES; i++) {
            sum += sums[i * PITCH + local];
        }
        sums[local] = sum;
    }
    workgroupBarrier();

    let row = first + local / UNITS;
    let own = group.x * UNITS + local % UNITS;
    if local < ROWS * UNITS && row < p.batch && own < p.hidden {
        let step = (group.z * p.steps + p.t) * p.batch + row;
        let at = step * GATES * p.hidden + own;
        var pre = array<f32, GATES>();
        for (var g = 0u; g < GATES; g++) {
            pre[g] = gates[at + g * p.hidden]
                + sums[(local / UNITS) * TILE + g * UNITS + local % UNITS]
                + weights[flat + p.b_offset + g * p.hidden + own];
        }
        let state = (before + row) * p.hidden + own;
        let cell = cell_forward(pre[0], pre[F], pre[G], pre[O], cs[state]);
        gates[at] = cell.i;
        if CIFG == 0u {
            gates[at + F * p.hidden] = cell.f;
        }
        gates[at + G * p.hidden] = cell.g;
        gates[at + O * p.hidden] = cell.o;
        cs[state + p.batch * p.hidden] = cell.c;
        hs[state + p.batch * p.hidden] = cell.h;
        y[step * p.hidden + own] = cell.h;
    }
}
