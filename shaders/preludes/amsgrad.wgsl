// AMSGrad divides by the largest second moment so far, which it keeps: `largest` [R, stride].
@group(0) @binding(7) var<storage, read_write> largest: array<vec4<f32>>;

fn divisor(at: u32, second: vec4<f32>, first: bool, inside: vec4<bool>) -> vec4<f32> {
    let before = largest[at];
    let from0 = select(before, vec4<f32>(0.0), vec4<bool>(first));
    // By their bits, which are in the order of the numbers, none of which is below zero; one that is
    // no number is the largest.
    let bits = max(bitcast<vec4<u32>>(from0), bitcast<vec4<u32>>(second));
    let top = bitcast<vec4<f32>>(bits);
    largest[at] = select(before, top, inside);
    return top;
}
