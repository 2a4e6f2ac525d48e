// normalizer = 1 / Σ weights[target] over the targets that are not 0xffffffff, 0 without any.
// Shapes: target [R, rows], weights [R, classes], normalizer [R].
struct Params {
    rows: u32,
    classes: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> target_class: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> normalizer: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // The whole vector is the one row of this reduction.
    if row_of(group, local) > 0u {
        return;
    }
    let lane = lane_of(local);
    var sum = 0.0;
    for (var i = lane; i < p.rows; i += LANES) {
        let class_index = target_class[group.z * p.rows + i];
        let weight = weights[group.z * p.classes + min(class_index, p.classes - 1u)];
        sum += select(weight, 0.0, class_index == 0xffffffffu);
    }
    let total = row_sum(local, sum);
    if lane == 0u {
        normalizer[group.z] = select(1.0 / total, 0.0, total == 0.0);
    }
}
