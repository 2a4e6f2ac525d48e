// A workgroup for each row: its invocations are the lanes. The same functions as
// rows_single, so that one kernel text serves both.
const LANES: u32 = GROUP;
var<workgroup> row_values: array<f32, GROUP>;

fn row_of(group: vec3<u32>, local: u32) -> u32 {
    return group.y * 65535u + group.x;
}

fn lane_of(local: u32) -> u32 {
    return local;
}

// Sum over the lanes, the same on all of them. GROUP is a power of two.
fn row_sum(local: u32, value: f32) -> f32 {
    // The scratch may still be read from the previous reduction.
    workgroupBarrier();
    row_values[local] = value;
    workgroupBarrier();
    for (var s = GROUP / 2u; s > 0u; s = s / 2u) {
        if local < s {
            row_values[local] += row_values[local + s];
        }
        workgroupBarrier();
    }
    return row_values[0];
}

// Maximum over the lanes, the same on all of them; NaN if one is.
fn row_max(local: u32, value: f32) -> f32 {
    workgroupBarrier();
    row_values[local] = value;
    workgroupBarrier();
    for (var s = GROUP / 2u; s > 0u; s = s / 2u) {
        if local < s {
            let other = row_values[local + s];
            row_values[local] = select(row_values[local], other, other > row_values[local] || other != other);
        }
        workgroupBarrier();
    }
    return row_values[0];
}
