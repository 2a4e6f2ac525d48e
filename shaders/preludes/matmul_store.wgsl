// First index and end of part `split` of K; parts start at multiples of 16.
fn part(split: u32) -> vec2<u32> {
    let length = ((p.k + p.splits - 1u) / p.splits + 15u) / 16u * 16u;
    let first = split * length;
    return vec2<u32>(min(first, p.k), min(first + length, p.k));
}

// Adds C and the bias as asked, activates and writes an invocation's tile: 4 ROWS × COLUMNS lines
// of four, where blocks of 4 × 4 lie `row_step` and `column_step` apart. What isn't asked for is a
// loop of length zero, not a branch: software devices run both sides of a branch.
fn store_tile(
    tile: ptr<function, array<vec4<f32>, 4u * ROWS * COLUMNS>>,
    replica: u32,
    split: u32,
    row: u32,
    column: u32,
    row_step: u32,
    column_step: u32,
) {
    let lines = 4u * ROWS * COLUMNS;
    let base = p.c_offset + replica * p.c_stride + split * p.m * p.c_row;
    let first = p.bias_offset + replica * p.bias_stride;
    for (var at = 0u; at < lines; at++) {
        let y = row + at / COLUMNS / 4u * row_step + at / COLUMNS % 4u;
        let x = column + at % COLUMNS * column_step;
        let to = base + min(y, p.m - 1u) * p.c_row;
        var line = tile[at];
        for (var i = 0u; i < select(0u, 4u, p.accumulate != 0u); i++) {
            line[i] += c[to + min(x + i, p.n - 1u)];
        }
        for (var i = 0u; i < select(0u, 4u, p.has_bias != 0u); i++) {
            line[i] += bias[first + min(x + i, p.n - 1u)];
        }
        for (var i = 0u; i < select(0u, 4u, p.activation != 0u); i++) {
            line[i] = activate(p.activation, line[i]);
        }
        for (var i = 0u; i < 4u; i++) {
            if y < p.m && x + i < p.n {
                c[to + x + i] = line[i];
            }
        }
    }
}
