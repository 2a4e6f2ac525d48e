// Σ γ · dy and Σ γ · dy · x̂ of each group, x̂ = (x − mean) / √(variance + ε). Shapes: x, dy [R, n],
// moments, sums [R, 2, groups], γ [channels] inside the flat parameters.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> moments: array<f32>;
@group(0) @binding(3) var<storage, read> parameters: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = row_of(group, local);
    if index >= p.groups {
        return;
    }
    let lane = lane_of(local);
    let first = group.z * elements();
    let length = p.runs * p.run;
    let to = mean_at(group.z, index);
    let mean = moments[to];
    let inverse = 1.0 / sqrt(moments[to + p.groups] + p.epsilon);
    var plain = 0.0;
    var weighted = 0.0;
    for (var i = lane; i < length; i += LANES) {
        let at = place(index, i);
        let d = dy[first + at] * parameters[gamma_at(group.z, channel_of(at))];
        plain += d;
        weighted += d * (x[first + at] - mean) * inverse;
    }
    plain = row_sum(local, plain);
    weighted = row_sum(local, weighted);
    if lane == 0u {
        sums[to] = plain;
        sums[to + p.groups] = weighted;
    }
}
