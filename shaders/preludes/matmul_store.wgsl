// First index and end of part `split` of K; parts start at multiples of 16.
fn part(split: u32) -> vec2<u32> {
    let length = ((p.k + p.splits - 1u) / p.splits + 15u) / 16u * 16u;
    let first = split * length;
    return vec2<u32>(min(first, p.k), min(first + length, p.k));
}

// Adds C and the bias as asked, activates and writes an invocation's tile: 4 ROWS × 4 COLUMNS,
// where blocks of 4 × 4 lie `row_step` and `column_step` apart. What isn't asked for is a loop
// of length zero, not a branch: software devices run both sides of a branch.
fn store_tile(
    tile: ptr<function, array<f32, 16u * ROWS * COLUMNS>>,
    replica: u32,
    split: u32,
    row: u32,
    column: u32,
    row_step: u32,
    column_step: u32,
) {
    let width = 4u * COLUMNS;
    let size = 16u * ROWS * COLUMNS;
    let base = p.c_offset + replica * p.c_stride + split * p.m * p.c_row;
    for (var at = 0u; at < select(0u, size, p.accumulate != 0u); at++) {
        let y = min(row + at / width / 4u * row_step + at / width % 4u, p.m - 1u);
        let x = min(column + at % width / 4u * column_step + at % 4u, p.n - 1u);
        tile[at] += c[base + y * p.c_row + x];
    }
    let first = p.bias_offset + replica * p.bias_stride;
    for (var at = 0u; at < select(0u, size, p.has_bias != 0u); at++) {
        let x = min(column + at % width / 4u * column_step + at % 4u, p.n - 1u);
        tile[at] += bias[first + x];
    }
    for (var at = 0u; at < select(0u, size, p.activation != 0u); at++) {
        tile[at] = activate(p.activation, tile[at]);
    }
    for (var at = 0u; at < size; at++) {
        let y = row + at / width / 4u * row_step + at / width % 4u;
        let x = column + at % width / 4u * column_step + at % 4u;
        if y < p.m && x < p.n {
            c[base + y * p.c_row + x] = tile[at];
        }
    }
}
