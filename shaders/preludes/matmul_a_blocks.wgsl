// The left operand in aligned rows of four, which `a_four` reads. A block's WGSL column i is row
// `row + i` of op(A), its component j column `k + j`; zero past `end`, rows past M repeat the
// last ones.

fn load_a(replica: u32, row: u32, k: u32, end: u32) -> mat4x4<f32> {
    let base = (p.a_offset + replica * p.a_stride) / 4u;
    let line = p.a_row / 4u;
    var block: mat4x4<f32>;
    if TRANS_A == 1u {
        let at = base + min(row, p.m - 4u) / 4u;
        let last = p.k - 1u;
        block = transpose(mat4x4<f32>(
            select(vec4<f32>(), a_four(at + min(k, last) * line), k < end),
            select(vec4<f32>(), a_four(at + min(k + 1u, last) * line), k + 1u < end),
            select(vec4<f32>(), a_four(at + min(k + 2u, last) * line), k + 2u < end),
            select(vec4<f32>(), a_four(at + min(k + 3u, last) * line), k + 3u < end),
        ));
    } else {
        let last = p.m - 1u;
        let at = base + min(k, p.k - 4u) / 4u;
        block = mat4x4<f32>(
            a_four(at + min(row, last) * line),
            a_four(at + min(row + 1u, last) * line),
            a_four(at + min(row + 2u, last) * line),
            a_four(at + min(row + 3u, last) * line),
        );
        if CHECK_K == 1u && k >= end {
            block = mat4x4<f32>();
        }
    }
    return block;
}
