// C = act(op(A)·op(B) + bias [+ C]) without workgroup memory, by the first GROUP = 8 invocations
// of a subgroup, which lie along N. Each keeps a tile of ROWS × COLUMNS blocks of 4 × 4 in
// registers; in a block, WGSL column y is row y of C. A is the same for all of them: of every
// eight rows each invocation loads one, and a shuffle hands it round.
@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let split = group.x % p.splits;
    let column = group.x / p.splits * GROUP * 4u * COLUMNS + 4u * lane;
    let row = group.y * 4u * ROWS;
    let base = p.a_offset + group.z * p.a_stride;
    let range = part(split);
    var sum: array<array<mat4x4<f32>, COLUMNS>, ROWS>;
    for (var k = range.x; k < range.y; k += 4u) {
        var right = array<mat4x4<f32>, COLUMNS>();
        for (var j = 0u; j < COLUMNS; j++) {
            right[j] = load_b(group.z, k, column + 4u * GROUP * j);
        }
        var own = array<vec4<f32>, ROWS / 2u>();
        for (var i = 0u; i < ROWS / 2u; i++) {
            own[i] = load_a_row(base, row + GROUP * i + lane, k, range.y);
        }
        for (var i = 0u; i < ROWS; i++) {
            for (var y = 0u; y < 4u; y++) {
                let left = subgroupShuffle(own[i / 2u], i % 2u * 4u + y);
                for (var j = 0u; j < COLUMNS; j++) {
                    var line = sum[i][j][y];
                    line += right[j][0] * left.x;
                    line += right[j][1] * left.y;
                    line += right[j][2] * left.z;
                    line += right[j][3] * left.w;
                    sum[i][j][y] = line;
                }
            }
        }
    }
    // A copy, so that only it is indexed by variables and the sums stay in registers.
    var tile: array<vec4<f32>, 4u * ROWS * COLUMNS>;
    for (var i = 0u; i < ROWS; i++) {
        for (var j = 0u; j < COLUMNS; j++) {
            for (var y = 0u; y < 4u; y++) {
                tile[(i * 4u + y) * COLUMNS + j] = sum[i][j][y];
            }
        }
    }
    store_tile(&tile, group.z, split, row, column, 4u, 4u * GROUP);
}
