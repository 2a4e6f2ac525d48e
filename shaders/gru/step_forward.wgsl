// One GRU time step: an invocation computes every gate of WIDE units in ROWS rows. Shapes: hs
// [R, T+1, B, H], gates [R, T, B, 3·H], recurrent, y [R, T, B, H].
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
@group(0) @binding(2) var<storage, read_write> hs: array<Wide>;
@group(0) @binding(3) var<storage, read_write> gates: array<Wide>;
@group(0) @binding(4) var<storage, read_write> recurrent: array<Wide>;
@group(0) @binding(5) var<storage, read_write> y: array<Wide>;

alias Units = Wide;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Lengths and positions from here on count Wide elements.
    let width = p.hidden / WIDE;
    let unit = group.x * GROUP + local;
    if unit >= width {
        return;
    }
    let flat = group.z * (p.stride / WIDE);
    let w = flat + p.w_offset / WIDE + unit * p.hidden;
    let gate = p.hidden * width;
    let first = group.y * ROWS;
    let before = (group.z * (p.steps + 1u) + p.t) * p.batch;

    // A short array a gate with loops over the rows alone: compilers then keep all in registers.
    var rows: array<u32, ROWS>;
    for (var b = 0u; b < ROWS; b++) {
        // Rows past the batch repeat the last one and are dropped below.
        rows[b] = (before + min(first + b, p.batch - 1u)) * width;
    }
    var r: array<Wide, ROWS>;
    var z: array<Wide, ROWS>;
    var q: array<Wide, ROWS>;
    for (var k = 0u; k < width; k++) {
        var h = array<Wide, ROWS>();
        for (var b = 0u; b < ROWS; b++) {
            h[b] = hs[rows[b] + k];
        }
        let to_r = flip(block(w + k, width));
        for (var b = 0u; b < ROWS; b++) {
            r[b] = multiply(to_r, h[b], r[b]);
        }
        let to_z = flip(block(w + gate + k, width));
        for (var b = 0u; b < ROWS; b++) {
            z[b] = multiply(to_z, h[b], z[b]);
        }
        let to_q = flip(block(w + 2u * gate + k, width));
        for (var b = 0u; b < ROWS; b++) {
            q[b] = multiply(to_q, h[b], q[b]);
        }
    }

    let bias = flat + p.b_offset / WIDE + unit;
    for (var b = 0u; b < ROWS; b++) {
        let row = first + b;
        if row < p.batch {
            let step = (group.z * p.steps + p.t) * p.batch + row;
            let at = step * GATES * width + unit;
            let state = (before + row) * width + unit;
            let own = q[b] + weights[bias + 2u * width];
            let cell = cell_forward(
                r[b] + gates[at] + weights[bias],
                z[b] + gates[at + width] + weights[bias + width],
                gates[at + 2u * width],
                own,
                hs[state],
            );
            gates[at] = cell.r;
            gates[at + width] = cell.z;
            gates[at + 2u * width] = cell.n;
            recurrent[step * width + unit] = own;
            hs[state + p.batch * width] = cell.h;
            y[step * width + unit] = cell.h;
        }
    }
}
