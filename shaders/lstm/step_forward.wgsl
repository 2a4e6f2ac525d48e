// One LSTM time step without workgroup memory: an invocation computes every gate of WIDE units
// in ROWS rows. Shapes: hs, cs [R, T+1, B, H], gates [R, T, B, G·H], y [R, T, B, H].
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
@group(0) @binding(2) var<storage, read_write> hs: array<Wide>;
@group(0) @binding(3) var<storage, read_write> cs: array<Wide>;
@group(0) @binding(4) var<storage, read_write> gates: array<Wide>;
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
    let first = group.y * ROWS;
    let flat = group.z * (p.stride / WIDE);
    let w = flat + p.w_offset / WIDE + unit * p.hidden;
    let before = (group.z * (p.steps + 1u) + p.t) * p.batch;

    var sums: array<Wide, GATES * ROWS>;
    for (var k = 0u; k < width; k++) {
        var h: array<Wide, ROWS>;
        for (var b = 0u; b < ROWS; b++) {
            // Rows past the batch repeat the last one and are dropped below.
            h[b] = hs[(before + min(first + b, p.batch - 1u)) * width + k];
        }
        for (var q = 0u; q < GATES; q++) {
            let m = flip(block(w + q * p.hidden * width + k, width));
            for (var b = 0u; b < ROWS; b++) {
                sums[q * ROWS + b] = multiply(m, h[b], sums[q * ROWS + b]);
            }
        }
    }

    let bias = flat + p.b_offset / WIDE + unit;
    for (var b = 0u; b < ROWS; b++) {
        let row = first + b;
        if row < p.batch {
            let step = (group.z * p.steps + p.t) * p.batch + row;
            var pre: array<Wide, GATES>;
            for (var q = 0u; q < GATES; q++) {
                pre[q] = gates[(step * GATES + q) * width + unit] + sums[q * ROWS + b]
                    + weights[bias + q * width];
            }
            let state = (before + row) * width + unit;
            let cell = cell_forward(pre[0], pre[F], pre[G], pre[O], cs[state]);
            gates[step * GATES * width + unit] = cell.i;
            if CIFG == 0u {
                gates[(step * GATES + F) * width + unit] = cell.f;
            }
            gates[(step * GATES + G) * width + unit] = cell.g;
            gates[(step * GATES + O) * width + unit] = cell.o;
            cs[state + p.batch * width] = cell.c;
            hs[state + p.batch * width] = cell.h;
            y[step * width + unit] = cell.h;
        }
    }
}
