// Four words of the left operand.
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;

fn a_four(at: u32) -> vec4<f32> {
    return a[at];
}
