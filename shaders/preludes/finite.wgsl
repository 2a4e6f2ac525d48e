// What is not finite counts as zero. By the bits, since compilers may assume there is none.
fn finite_or_zero(x: vec4<f32>) -> vec4<f32> {
    let special = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
    return select(x, vec4<f32>(0.0), special);
}

// What is smaller than every normal number counts as zero: some devices compute with such numbers,
// others take them for zero, and codes have to be the same everywhere.
fn normal_or_zero(x: vec4<f32>) -> vec4<f32> {
    let small = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) == vec4<u32>(0u);
    return select(x, vec4<f32>(0.0), small);
}
