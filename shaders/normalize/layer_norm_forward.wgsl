// y = (x - mean) · rstd · γ + β over each row, two passes over the row for the variance.
// Shapes: x, y [R, rows, width], mean, rstd [R, rows], γ and β [width] inside the flat
// parameters.
struct Params {
    rows: u32,
    width: u32,
    epsilon: f32,
    gamma_offset: u32,
    beta_offset: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let at = group.z * p.rows + row;
    let first = at * p.width;
    let flat = group.z * p.stride;
    var sum = 0.0;
    for (var c = lane; c < p.width; c += LANES) {
        sum += x[first + c];
    }
    let center = row_sum(local, sum) / f32(p.width);
    var squares = 0.0;
    for (var c = lane; c < p.width; c += LANES) {
        let d = x[first + c] - center;
        squares += d * d;
    }
    let variance = row_sum(local, squares) / f32(p.width);
    // Not inverseSqrt: some devices compute that to few bits.
    let inverse = 1.0 / sqrt(variance + p.epsilon);
    for (var c = lane; c < p.width; c += LANES) {
        let gamma = parameters[flat + p.gamma_offset + c];
        y[first + c] = (x[first + c] - center) * inverse * gamma
            + parameters[flat + p.beta_offset + c];
    }
    if lane == 0u {
        mean[at] = center;
        rstd[at] = inverse;
    }
}
