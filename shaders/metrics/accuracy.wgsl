// counts (+)= [rows of rank 0, rows of rank < k, rows with a target].
// Shapes: ranks [R, rows], counts [R, 3].
struct Params {
    rows: u32,
    k: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ranks: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // The whole vector is the one row of this reduction.
    if row_of(group, local) > 0u {
        return;
    }
    let lane = lane_of(local);
    var found = vec3<f32>(0.0);
    for (var i = lane; i < p.rows; i += LANES) {
        let place = ranks[group.z * p.rows + i];
        found += select(
            vec3<f32>(0.0),
            vec3<f32>(1.0),
            vec3<bool>(place == 0u, place < p.k, place != 0xffffffffu),
        );
    }
    // Exact: a batch has fewer than 2^24 rows.
    let total = vec3<f32>(
        row_sum(local, found.x),
        row_sum(local, found.y),
        row_sum(local, found.z),
    );
    if lane == 0u {
        for (var k = 0u; k < 3u; k += 1u) {
            let at = group.z * 3u + k;
            counts[at] = u32(total[k]) + select(0u, counts[at], p.accumulate != 0u);
        }
    }
}
