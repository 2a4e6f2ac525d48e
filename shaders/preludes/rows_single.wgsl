// An invocation for each row, without workgroup memory. The same functions as rows_group,
// so that one kernel text serves both.
const LANES: u32 = 1u;

fn row_of(group: vec3<u32>, local: u32) -> u32 {
    return (group.y * 65535u + group.x) * GROUP + local;
}

fn lane_of(local: u32) -> u32 {
    return 0u;
}

fn row_sum(local: u32, value: f32) -> f32 {
    return value;
}

fn row_max(local: u32, value: f32) -> f32 {
    return value;
}
