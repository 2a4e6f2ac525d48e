// Four pixels that one invocation computes, GROUP apart so that neighbors read neighbors. A
// pixel of [batch, height · width] is split into image, row and column.
struct Pixels {
    image: vec4<u32>,
    row: vec4<u32>,
    column: vec4<u32>,
}

fn pixels(first: u32, height: u32, width: u32) -> Pixels {
    let at = first + GROUP * vec4<u32>(0u, 1u, 2u, 3u);
    let rest = at % (height * width);
    return Pixels(at / (height * width), rest / width, rest % width);
}
