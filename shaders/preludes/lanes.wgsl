// Which lanes of the i-th vec4 of a range of n elements belong to the range: the last vec4
// may reach past its end.
fn lanes(i: u32, n: u32) -> vec4<bool> {
    return vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(n);
}
