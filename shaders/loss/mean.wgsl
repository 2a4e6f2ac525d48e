// loss = Σ row_loss / max(count, 1). Shapes: row_loss [R, rows], count [R], loss [R].
struct Params {
    rows: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> row_loss: array<f32>;
@group(0) @binding(2) var<storage, read> count: array<f32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // The whole vector is the one row of this reduction.
    if row_of(group, local) > 0u {
        return;
    }
    let lane = lane_of(local);
    var sum = 0.0;
    for (var i = lane; i < p.rows; i += LANES) {
        sum += row_loss[group.z * p.rows + i];
    }
    let total = row_sum(local, sum);
    if lane == 0u {
        loss[group.z] = total / max(count[group.z], 1.0);
    }
}
