// C = act(op(A)·op(B) + bias [+ C]) without workgroup memory: an invocation keeps a tile of
// ROWS × COLUMNS blocks of 4 × 4 in registers. The invocations of a workgroup lie along N, so
// that A is the same for all of them. In a block of the result, WGSL column y is row y of C.
@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let split = group.x % p.splits;
    let column = group.x / p.splits * GROUP * 4u * COLUMNS + 4u * local;
    let row = group.y * 4u * ROWS;
    let range = part(split);
    var sum: array<array<mat4x4<f32>, COLUMNS>, ROWS>;
    for (var k = range.x; k < range.y; k += 4u) {
        var right = array<mat4x4<f32>, COLUMNS>();
        for (var j = 0u; j < COLUMNS; j++) { // unrolled
            right[j] = load_b(group.z, k, column + 4u * GROUP * j);
        }
        for (var i = 0u; i < ROWS; i++) { // unrolled
            let left = load_a(group.z, row + 4u * i, k, range.y);
            for (var j = 0u; j < COLUMNS; j++) { // unrolled
                for (var y = 0u; y < 4u; y++) { // unrolled
                    var line = sum[i][j][y];
                    line += right[j][0] * left[y].x;
                    line += right[j][1] * left[y].y;
                    line += right[j][2] * left[y].z;
                    line += right[j][3] * left[y].w;
                    sum[i][j][y] = line;
                }
            }
        }
    }
    // A copy, so that only it is indexed by variables and the sums stay in registers.
    var tile: array<vec4<f32>, 4u * ROWS * COLUMNS>;
    for (var i = 0u; i < ROWS; i++) { // unrolled
        for (var j = 0u; j < COLUMNS; j++) { // unrolled
            for (var y = 0u; y < 4u; y++) { // unrolled
                tile[(i * 4u + y) * COLUMNS + j] = sum[i][j][y];
            }
        }
    }
    store_tile(&tile, group.z, split, row, column, 4u, 4u * GROUP);
}
