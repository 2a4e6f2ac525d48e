// What the backward pass needs of each row: its log Σ e^score, and Σ dy · y. Shapes: y, dy
// [R, rows, width], log_sum [R, rows], sums [R, rows, 2].
struct Params {
    rows: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read> log_sum: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let at = group.z * p.rows + row;
    var sum = 0.0;
    for (var c = lane; c < p.width; c += LANES) {
        sum += dy[at * p.width + c] * y[at * p.width + c];
    }
    sum = row_sum(local, sum);
    if lane == 0u {
        sums[2u * at] = log_sum[at];
        sums[2u * at + 1u] = sum;
    }
}
