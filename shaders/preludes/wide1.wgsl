// Element by element, for sizes that wide4.wgsl can't take: the same names.
alias Wide = f32;
alias Block = f32;
const WIDE: u32 = 1u;

fn block(at: u32, stride: u32) -> Block {
    return weights[at];
}

fn flip(m: Block) -> Block {
    return m;
}

fn multiply(m: Block, x: Wide, sum: Wide) -> Wide {
    return fma(m, x, sum);
}

fn part(x: Wide, i: u32) -> f32 {
    return x;
}
