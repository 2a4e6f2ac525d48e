// What two words of bfloat16 hold: the upper halves of floats.
fn floats(packed: vec2<u32>) -> vec4<f32> {
    let first = bitcast<vec2<f32>>(packed << vec2<u32>(16u));
    let second = bitcast<vec2<f32>>(packed & vec2<u32>(0xffff0000u));
    return vec4<f32>(first.x, second.x, first.y, second.y);
}
