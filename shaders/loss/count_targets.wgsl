// count = number of targets that are not 0xffffffff. Shapes: target [R, rows], count [R].
struct Params {
    rows: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> target_class: array<u32>;
@group(0) @binding(2) var<storage, read_write> count: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // The whole vector is the one row of this reduction.
    if row_of(group, local) > 0u {
        return;
    }
    let lane = lane_of(local);
    var valid = 0.0;
    for (var i = lane; i < p.rows; i += LANES) {
        if target_class[group.z * p.rows + i] != 0xffffffffu {
            valid += 1.0;
        }
    }
    let total = row_sum(local, valid);
    if lane == 0u {
        count[group.z] = total;
    }
}
