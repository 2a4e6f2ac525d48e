// Invocation number of a one-dimensional kernel whose grid may be folded into y.
fn linear_index(group: vec3<u32>, local: u32) -> u32 {
    return (group.y * 65535u + group.x) * GROUP + local;
}
