// Adam divides by the second moment as it is.
fn divisor(at: u32, second: vec4<f32>, first: bool, inside: vec4<bool>) -> vec4<f32> {
    return second;
}
