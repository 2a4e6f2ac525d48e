// Four neighboring elements as one: sizes and offsets that are multiples of four.
alias Wide = vec4<f32>;
alias Block = mat4x4<f32>;
const WIDE: u32 = 4u;

// Columns are four rows of `weights`, `stride` apart.
fn block(at: u32, stride: u32) -> Block {
    return Block(
        weights[at],
        weights[at + stride],
        weights[at + 2u * stride],
        weights[at + 3u * stride],
    );
}

fn flip(m: Block) -> Block {
    return transpose(m);
}

// sum + m·x
fn multiply(m: Block, x: Wide, sum: Wide) -> Wide {
    let a = fma(m[0], Wide(x.x), sum);
    let b = fma(m[1], Wide(x.y), a);
    let c = fma(m[2], Wide(x.z), b);
    return fma(m[3], Wide(x.w), c);
}

fn part(x: Wide, i: u32) -> f32 {
    return x[i];
}
