// One LSTM time step backward without workgroup memory: an invocation computes every gate
// gradient of twice WIDE units in ROWS rows. Shapes: gates, dgates [R, T, B, G·H], cs [R, T+1, B, H],
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

fn finish(replica: u32, row: u32, unit: u32, sum: Wide) {
    let width = p.hidden / WIDE;
    let step = (replica * p.steps + p.t) * p.batch + row;
    let state = (replica * p.batch + row) * width + unit;
    var dh = sum;
    var carried = Wide(0.0);
    if p.t + 1u < p.steps {
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
        dh += dy[step * width + unit];
    }
    let at = step * GATES * width + unit;
    let before = (step + replica * p.batch) * width + unit;
    let d = cell_backward(
        gates[at], gates[at + F * width], gates[at + G * width], gates[at + O * width],
        cs[before], cs[before + p.batch * width], dh, carried,
    );
    dgates[at] = d.i;
    if CIFG == 0u {
        dgates[at + F * width] = d.f;
    }
    dgates[at + G * width] = d.g;
    dgates[at + O * width] = d.o;
    dc[state] = d.c;
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Lengths and positions from here on count Wide elements.
    let width = p.hidden / WIDE;
    let half = (width + 1u) / 2u;
    let unit = group.x * GROUP + local;
    if unit >= half {
        return;
    }
    let w = (group.z * p.stride + p.w_offset) / WIDE;
    let first = group.y * ROWS;
    let next = (group.z * p.steps + p.t + 1u) * p.batch;
    var rows: array<u32, ROWS>;
    for (var b = 0u; b < ROWS; b++) { // unrolled
        // Rows past the batch repeat the last one, units past H another, and both are dropped.
        rows[b] = (next + min(first + b, p.batch - 1u)) * GATES * width;
    }
    let left_at = w + unit;
    let right_at = w + min(unit + half, width - 1u);
    var left: array<Wide, ROWS>;
    var right: array<Wide, ROWS>;
    let sums = select(GATES * width, 0u, p.t + 1u == p.steps);
    for (var k = 0u; k < sums; k++) {
        let to_left = block(left_at + k * p.hidden, width);
        let to_right = block(right_at + k * p.hidden, width);
        for (var b = 0u; b < ROWS; b++) { // unrolled
            let d = dgates[rows[b] + k];
            left[b] = multiply(to_left, d, left[b]);
            right[b] = multiply(to_right, d, right[b]);
        }
    }
    for (var b = 0u; b < ROWS; b++) {
        if first + b < p.batch {
            finish(group.z, first + b, unit, left[b]);
            if unit + half < width { finish(group.z, first + b, unit + half, right[b]); }
        }
    }
}
