// y = x · rrms · weight over each row, rrms = 1 / √(mean(x²) + ε). Shapes: x, y
// [R, rows, width], rrms [R, rows], weight [width] inside the flat parameters.
struct Params {
    rows: u32,
    width: u32,
    epsilon: f32,
    weight_offset: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> rrms: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let at = group.z * p.rows + row;
    let first = at * p.width;
    let weight = group.z * p.stride + p.weight_offset;
    var squares = 0.0;
    for (var c = lane; c < p.width; c += LANES) {
        squares += x[first + c] * x[first + c];
    }
    let square = row_sum(local, squares) / f32(p.width);
    // Not inverseSqrt: some devices compute that to few bits.
    let inverse = 1.0 / sqrt(square + p.epsilon);
    for (var c = lane; c < p.width; c += LANES) {
        y[first + c] = x[first + c] * inverse * parameters[weight + c];
    }
    if lane == 0u {
        rrms[at] = inverse;
    }
}
