// One GRU time step backward: an invocation computes every gate gradient of WIDE units in ROWS rows.
// Shapes: gates, dgates, drecurrent [R, T, B, 3·H], recurrent, dy [R, T, B, H], hs [R, T+1, B, H],
// carried [R, B, H].
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
@group(0) @binding(1) var<storage, read> weights: array<Wide>;
@group(0) @binding(2) var<storage, read> gates: array<Wide>;
@group(0) @binding(3) var<storage, read> recurrent: array<Wide>;
@group(0) @binding(4) var<storage, read> hs: array<Wide>;
@group(0) @binding(5) var<storage, read> dy: array<Wide>;
@group(0) @binding(6) var<storage, read_write> dgates: array<Wide>;
@group(0) @binding(7) var<storage, read_write> drecurrent: array<Wide>;
@group(0) @binding(8) var<storage, read_write> carried: array<Wide>;

alias Units = Wide;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Lengths and positions from here on count Wide elements.
    let width = p.hidden / WIDE;
    let unit = group.x * GROUP + local;
    if unit >= width {
        return;
    }
    let w = (group.z * p.stride + p.w_offset) / WIDE + unit;
    let first = group.y * ROWS;
    let here = (group.z * p.steps + p.t) * p.batch;
    var rows: array<u32, ROWS>;
    for (var b = 0u; b < ROWS; b++) {
        // Rows past the batch repeat the last one and are dropped below.
        rows[b] = (here + p.batch + min(first + b, p.batch - 1u)) * GATES * width;
    }
    var sums: array<Wide, ROWS>;
    let terms = select(GATES * width, 0u, p.t + 1u == p.steps);
    for (var k = 0u; k < terms; k++) {
        let to_unit = block(w + k * p.hidden, width);
        for (var b = 0u; b < ROWS; b++) {
            sums[b] = multiply(to_unit, drecurrent[rows[b] + k], sums[b]);
        }
    }
    for (var b = 0u; b < ROWS; b++) {
        let row = first + b;
        if row < p.batch {
            let step = here + row;
            let state = (group.z * p.batch + row) * width + unit;
            var dh = sums[b] + carried[state];
            if p.has_dy != 0u {
                dh += dy[step * width + unit];
            }
            let at = step * GATES * width + unit;
            let d = cell_backward(
                gates[at], gates[at + width], gates[at + 2u * width],
                recurrent[step * width + unit],
                hs[(step + group.z * p.batch) * width + unit],
                dh,
            );
            dgates[at] = d.r;
            dgates[at + width] = d.z;
            dgates[at + 2u * width] = d.n;
            drecurrent[at] = d.r;
            drecurrent[at + width] = d.z;
            drecurrent[at + 2u * width] = d.q;
            carried[state] = d.h;
        }
    }
}
