// Four words of the right operand.
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;

fn b_four(at: u32) -> vec4<f32> {
    return b[at];
}
