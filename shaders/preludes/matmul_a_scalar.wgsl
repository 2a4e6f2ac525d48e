// The left operand word by word, for any sizes and offsets. A block's WGSL column i is row
// `row + i` of op(A), its component j column `k + j`; zero past `end`, rows past M repeat
// the last one.
@group(0) @binding(1) var<storage, read> a: array<f32>;

fn load_a_word(base: u32, row: u32, k: u32, end: u32) -> f32 {
    let r = min(row, p.m - 1u);
    let i = min(k, p.k - 1u);
    let at = select(r * p.a_row + i, i * p.a_row + r, TRANS_A == 1u);
    return select(0.0, a[base + at], k < end);
}

fn load_a_row(base: u32, row: u32, k: u32, end: u32) -> vec4<f32> {
    return vec4<f32>(
        load_a_word(base, row, k, end),
        load_a_word(base, row, k + 1u, end),
        load_a_word(base, row, k + 2u, end),
        load_a_word(base, row, k + 3u, end),
    );
}

fn load_a(replica: u32, row: u32, k: u32, end: u32) -> mat4x4<f32> {
    let base = p.a_offset + replica * p.a_stride;
    return mat4x4<f32>(
        load_a_row(base, row, k, end),
        load_a_row(base, row + 1u, k, end),
        load_a_row(base, row + 2u, k, end),
        load_a_row(base, row + 3u, k, end),
    );
}
