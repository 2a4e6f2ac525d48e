// The right operand word by word, for any sizes and offsets. A block's WGSL column i is row
// `k + i` of op(B), its component j column `column + j`; rows past K and columns past N
// repeat the last one (the left operand is zero there).
@group(0) @binding(2) var<storage, read> b: array<f32>;

fn load_b_word(base: u32, k: u32, column: u32) -> f32 {
    let i = min(k, p.k - 1u);
    let j = min(column, p.n - 1u);
    return b[base + select(i * p.b_row + j, j * p.b_row + i, TRANS_B == 1u)];
}

fn load_b_row(base: u32, k: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(
        load_b_word(base, k, column),
        load_b_word(base, k, column + 1u),
        load_b_word(base, k, column + 2u),
        load_b_word(base, k, column + 3u),
    );
}

fn load_b(replica: u32, k: u32, column: u32) -> mat4x4<f32> {
    let base = p.b_offset + replica * p.b_stride;
    return mat4x4<f32>(
        load_b_row(base, k, column),
        load_b_row(base, k + 1u, column),
        load_b_row(base, k + 2u, column),
        load_b_row(base, k + 3u, column),
    );
}
