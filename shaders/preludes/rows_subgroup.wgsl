// The functions of rows_group with a workgroup for each row, reduced by subgroups first: two
// barriers instead of one a halving. A subgroup is a run of neighboring invocations, of whatever
// length the device has; drivers that number them otherwise fail the self-test.
const LANES: u32 = GROUP;
// No device has subgroups of fewer than four.
var<workgroup> row_values: array<f32, GROUP / 4u>;

fn row_of(group: vec3<u32>, local: u32) -> u32 {
    return group.y * 65535u + group.x;
}

fn lane_of(local: u32) -> u32 {
    return local;
}

// Sum over the lanes, the same on all of them.
fn row_sum(local: u32, value: f32) -> f32 {
    let size = subgroupAdd(1u);
    let part = subgroupAdd(value);
    // The scratch may still be read from the previous reduction.
    workgroupBarrier();
    if local % size == 0u {
        row_values[local / size] = part;
    }
    workgroupBarrier();
    var sum = row_values[0];
    for (var i = 1u; i < GROUP / size; i++) {
        sum += row_values[i];
    }
    return sum;
}

// Maximum over the lanes, the same on all of them; NaN if one is.
fn row_max(local: u32, value: f32) -> f32 {
    let size = subgroupAdd(1u);
    // The maximum may leave a NaN out; a sum doesn't.
    let part = subgroupMax(value) + subgroupAdd(select(0.0, value, value != value));
    workgroupBarrier();
    if local % size == 0u {
        row_values[local / size] = part;
    }
    workgroupBarrier();
    var largest = row_values[0];
    for (var i = 1u; i < GROUP / size; i++) {
        largest = select(largest, row_values[i], row_values[i] > largest || row_values[i] != row_values[i]);
    }
    return largest;
}
