// Softmax: dx (+)= y · (dy - Σ dy · y); log-softmax: dx (+)= dy - exp(y) · Σ dy; sums over
// the row. Shapes: y, dy, dx [R, rows, classes].
struct Params {
    rows: u32,
    classes: u32,
    logarithm: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let first = (group.z * p.rows + row) * p.classes;
    var sum = 0.0;
    for (var c = lane; c < p.classes; c += LANES) {
        sum += dy[first + c] * select(y[first + c], 1.0, p.logarithm != 0u);
    }
    sum = row_sum(local, sum);
    for (var c = lane; c < p.classes; c += LANES) {
        let at = first + c;
        var g = 0.0;
        if p.logarithm != 0u {
            g = dy[at] - exp(y[at]) * sum;
        } else {
            g = y[at] * (dy[at] - sum);
        }
        if p.accumulate != 0u {
            g += dx[at];
        }
        dx[at] = g;
    }
}
