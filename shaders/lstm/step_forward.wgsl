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
    let flat = group.z * (p.stride / WIDE);
    let w = flat + p.w_offset / WIDE + unit * p.hidden;
    let gate = p.hidden * width;
    let first = group.y * ROWS;
    let before = (group.z * (p.steps + 1u) + p.t) * p.batch;

    // A short array a gate with loops over the rows alone: compilers then keep all in registers.
    var rows: array<u32, ROWS>;
    for (var b = 0u; b < ROWS; b++) { // unrolled
        // Rows past the batch repeat the last one and are dropped below.
        rows[b] = (before + min(first + b, p.batch - 1u)) * width;
    }
    var i: array<Wide, ROWS>;
    var f: array<Wide, ROWS>;
    var g: array<Wide, ROWS>;
    var o: array<Wide, ROWS>;
    for (var k = 0u; k < width; k++) {
        var h = array<Wide, ROWS>();
        for (var b = 0u; b < ROWS; b++) { // unrolled
            h[b] = hs[rows[b] + k];
        }
        let to_i = flip(block(w + k, width));
        for (var b = 0u; b < ROWS; b++) { // unrolled
            i[b] = multiply(to_i, h[b], i[b]);
        }
        if CIFG == 0u {
            let to_f = flip(block(w + F * gate + k, width));
            for (var b = 0u; b < ROWS; b++) { // unrolled
                f[b] = multiply(to_f, h[b], f[b]);
            }
        }
        let to_g = flip(block(w + G * gate + k, width));
        for (var b = 0u; b < ROWS; b++) { // unrolled
            g[b] = multiply(to_g, h[b], g[b]);
        }
        let to_o = flip(block(w + O * gate + k, width));
        for (var b = 0u; b < ROWS; b++) { // unrolled
            o[b] = multiply(to_o, h[b], o[b]);
        }
    }

    let bias = flat + p.b_offset / WIDE + unit;
    for (var b = 0u; b < ROWS; b++) {
        let row = first + b;
        if row < p.batch {
            let step = (group.z * p.steps + p.t) * p.batch + row;
            let at = step * GATES * width + unit;
            let state = (before + row) * width + unit;
            var forget = Wide();
            if CIFG == 0u {
                forget = f[b] + gates[at + F * width] + weights[bias + F * width];
            }
            let cell = cell_forward(
                i[b] + gates[at] + weights[bias],
                forget,
                g[b] + gates[at + G * width] + weights[bias + G * width],
                o[b] + gates[at + O * width] + weights[bias + O * width],
                cs[state],
            );
            gates[at] = cell.i;
            if CIFG == 0u {
                gates[at + F * width] = cell.f;
            }
            gates[at + G * width] = cell.g;
            gates[at + O * width] = cell.o;
            cs[state + p.batch * width] = cell.c;
            hs[state + p.batch * width] = cell.h;
            y[step * width + unit] = cell.h;
        }
    }
}
