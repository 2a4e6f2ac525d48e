// A workgroup for COLUMNS neighboring columns, whose rows are shared out among
// GROUP / COLUMNS lanes. The same functions as columns_single. Invocations past the last
// column must reach column_sum too.
const LANES: u32 = GROUP / COLUMNS;
// Rows whose terms are summed by themselves, 64 a lane: rounding errors grow with a chain's length.
const BLOCK: u32 = 64u * LANES;
var<workgroup> column_values: array<f32, GROUP>;

fn column_of(group: vec3<u32>, local: u32) -> u32 {
    return (group.y * 65535u + group.x) * COLUMNS + local % COLUMNS;
}

fn lane_of(local: u32) -> u32 {
    return local / COLUMNS;
}

// Sum over the lanes of a column, valid on lane 0.
fn column_sum(local: u32, value: f32) -> f32 {
    // The scratch may still be read from the previous reduction.
    workgroupBarrier();
    column_values[local] = value;
    workgroupBarrier();
    for (var s = LANES / 2u; s > 0u; s = s / 2u) {
        if local < s * COLUMNS {
            column_values[local] += column_values[local + s * COLUMNS];
        }
        workgroupBarrier();
    }
    return column_values[local];
}
