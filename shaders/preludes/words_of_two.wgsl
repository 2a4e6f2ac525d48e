// Four numbers of 16 bits of an operand, two packed into a word, without any feature of the hardware.
@group(0) @binding(1) var<storage, read> a: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> b: array<vec2<u32>>;

fn a_four(at: u32) -> vec4<f32> {
    return floats(a[at]);
}

fn b_four(at: u32) -> vec4<f32> {
    return floats(b[at]);
}
