// Mean and variance of each group. Shapes: x [R, n], moments [R, 2, groups].
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> moments: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = row_of(group, local);
    if index >= p.groups {
        return;
    }
    let lane = lane_of(local);
    let first = group.z * elements();
    let length = p.runs * p.run;
    var sum = 0.0;
    for (var i = lane; i < length; i += LANES) {
        sum += x[first + place(index, i)];
    }
    let mean = row_sum(local, sum) / f32(length);
    var squares = 0.0;
    for (var i = lane; i < length; i += LANES) {
        let d = x[first + place(index, i)] - mean;
        squares += d * d;
    }
    let variance = row_sum(local, squares) / f32(length);
    if lane == 0u {
        let at = mean_at(group.z, index);
        moments[at] = mean;
        moments[at + p.groups] = variance;
    }
}
