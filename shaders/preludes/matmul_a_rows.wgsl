// Words `k` to `k + 3` of row `row` of the left operand, which isn't transposed, in aligned rows of
// four, which `a_four` reads; rows past M repeat the last one. `k` lies before `end`.

fn load_a_row(base: u32, row: u32, k: u32, end: u32) -> vec4<f32> {
    return a_four((base + min(row, p.m - 1u) * p.a_row + min(k, end - 4u)) / 4u);
}
