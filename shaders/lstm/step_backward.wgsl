// One LSTM time step backward without workgroup memory: an invocation computes every gate
// gradient of WIDE units in ROWS rows. Shapes: gates, dgates [R, T, B, G·H], cs [R, T+1, B, H],
// dy [R, T, B, H], dh_last, dc_last, dc [R, B, H].
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
@group(0) @binding(1) var<storage, read> weights: array<Wide>;
@group(0) @binding(2) var<storage, read> gates: array<Wide>;
@group(0) @binding(3) var<storage, read> cs: array<Wide>;
@group(0) @binding(4) var<storage, read> dy: array<Wide>;
@group(0) @binding(5) var<storage, read> dh_last: array<Wide>;
@group(0) @binding(6) var<storage, read> dc_last: array<Wide>;
@group(0) @binding(7) var<storage, read_write> dgates: array<Wide>;
@group(0) @binding(8) var<storage, read_write> dc: array<Wide>;

alias Units = Wide;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Lengths and positions from here on count Wide elements.
    let width = p.hidden / WIDE;
    let unit = group.x * GROUP + local;
    if unit >= width {
        return;
    }
    let first = group.y * ROWS;
    let w = (group.z * p.stride + p.w_offset) / WIDE + unit;
    let here = (group.z * p.steps + p.t) * p.batch;
    let last = p.t + 1u == p.steps;

    var dh: array<Wide, ROWS>;
    for (var k = 0u; !last && k < GATES * width; k++) {
        let m = block(w + k * p.hidden, width);
        for (var b = 0u; b < ROWS; b++) {
            // Rows past the batch repeat the last one and are dropped below.
            let next = here + p.batch + min(first + b, p.batch - 1u);
            dh[b] = multiply(m, dgates[next * GATES * width + k], dh[b]);
        }
    }

    for (var b = 0u; b < ROWS; b++) {
        let row = first + b;
        if row < p.batch {
            let step = here + row;
            let state = (group.z * p.batch + row) * width + unit;
            var carried = Wide(0.0);
            if !last {
                carried = dc[state];
            } else {
                if p.has_dh != 0u {
                    dh[b] = dh_last[state];
                }
                if p.has_dc != 0u {
                    carried = dc_last[state];
                }
            }
            if p.has_dy != 0u {
                dh[b] += dy[step * width + unit];
            }
            let at = step * GATES * width + unit;
            let before = (step + group.z * p.batch) * width + unit;
            let d = cell_backward(
                gates[at], gates[at + F * width], gates[at + G * width], gates[at + O * width],
                cs[before], cs[before + p.batch * width], dh[b], carried,
            );
            dgates[at] = d.i;
            if CIFG == 0u {
                dgates[at + F * width] = d.f;
            }
            dgates[at + G * width] = d.g;
            dgates[at + O * width] = d.o;
            dc[state] = d.c;
        }
    }
}
