// Four halves of an operand as the hardware's 16-bit floats.
@group(0) @binding(1) var<storage, read> a: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f16>>;

fn a_four(at: u32) -> vec4<f32> {
    return vec4<f32>(a[at]);
}

fn b_four(at: u32) -> vec4<f32> {
    return vec4<f32>(b[at]);
}
