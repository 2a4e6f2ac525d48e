// A row's sum (0), maximum (1) or mean (2), step by step; as in shaders/src/kernels/reduce.rs.
fn reduce_start(kind: u32, first: f32) -> f32 {
    return select(0.0, first, kind == 1u);
}

fn reduce_pair(kind: u32, a: f32, b: f32) -> f32 {
    // The larger, not the maximum, which could hide a NaN.
    return select(a + b, select(a, b, b > a || b != b), kind == 1u);
}

fn reduce_end(kind: u32, result: f32, count: u32) -> f32 {
    return select(result, result / f32(count), kind == 2u);
}
