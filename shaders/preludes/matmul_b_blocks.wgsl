// The right operand in aligned rows of four, which `b_four` reads. A block's WGSL column i is row
// `k + i` of op(B), its component j column `column + j`; rows past K and columns past N repeat
// the last ones (the left operand is zero there).

fn load_b(replica: u32, k: u32, column: u32) -> mat4x4<f32> {
    let base = (p.b_offset + replica * p.b_stride) / 4u;
    let line = p.b_row / 4u;
    if TRANS_B == 1u {
        let last = p.n - 1u;
        let at = base + min(k, p.k - 4u) / 4u;
        return transpose(mat4x4<f32>(
            b_four(at + min(column, last) * line),
            b_four(at + min(column + 1u, last) * line),
            b_four(at + min(column + 2u, last) * line),
            b_four(at + min(column + 3u, last) * line),
        ));
    }
    let last = p.k - 1u;
    let at = base + min(column, p.n - 4u) / 4u;
    return mat4x4<f32>(
        b_four(at + min(k, last) * line),
        b_four(at + min(k + 1u, last) * line),
        b_four(at + min(k + 2u, last) * line),
        b_four(at + min(k + 3u, last) * line),
    );
}
