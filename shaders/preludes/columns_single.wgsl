// An invocation for each column, without workgroup memory. The same functions as
// columns_group.
const LANES: u32 = 1u;
// Rows whose terms are summed by themselves, 64 a lane: rounding errors grow with a chain's length.
const BLOCK: u32 = 64u * LANES;

fn column_of(group: vec3<u32>, local: u32) -> u32 {
    return (group.y * 65535u + group.x) * GROUP + local;
}

fn lane_of(local: u32) -> u32 {
    return 0u;
}

fn column_sum(local: u32, value: f32) -> f32 {
    return value;
}
