// y = softmax of each row of x, or its logarithm. Shapes: x, y [R, rows, classes].
struct Params {
    rows: u32,
    classes: u32,
    logarithm: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let first = (group.z * p.rows + row) * p.classes;
    var largest = -3.4e38;
    for (var c = lane; c < p.classes; c += LANES) {
        largest = max(largest, x[first + c]);
    }
    largest = row_max(local, largest);
    var sum = 0.0;
    for (var c = lane; c < p.classes; c += LANES) {
        sum += exp(x[first + c] - largest);
    }
    sum = row_sum(local, sum);
    for (var c = lane; c < p.classes; c += LANES) {
        let shifted = x[first + c] - largest;
        if p.logarithm != 0u {
            y[first + c] = shifted - log(sum);
        } else {
            y[first + c] = exp(shifted) / sum;
        }
    }
}
