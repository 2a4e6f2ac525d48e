// dx (+)= rrms · (g - x̂ · mean(g · x̂)), g = dy · weight, x̂ = x · rrms. Shapes: x, dy, dx
// [R, rows, width], rrms [R, rows], weight [width] inside the flat parameters.
struct Params {
    rows: u32,
    width: u32,
    weight_offset: u32,
    stride: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read> rrms: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

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
    let inverse = rrms[at];
    var weighted = 0.0;
    for (var c = lane; c < p.width; c += LANES) {
        weighted += dy[first + c] * parameters[weight + c] * x[first + c] * inverse;
    }
    weighted = row_sum(local, weighted) / f32(p.width);
    for (var c = lane; c < p.width; c += LANES) {
        let normal = x[first + c] * inverse;
        var d = inverse * (dy[first + c] * parameters[weight + c] - normal * weighted);
        if p.accumulate != 0u {
            d += dx[first + c];
        }
        dx[first + c] = d;
    }
}
