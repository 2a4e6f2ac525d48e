// C = act(op(A)·op(B) + bias [+ C]): a workgroup of ACROSS × DOWN invocations computes a tile of
// C. It brings 16 columns of op(A) and rows of op(B) at a time into workgroup memory, block of
// 4 × 4 by block, and each invocation keeps ROWS × COLUMNS blocks of sums in registers. Its
// blocks lie 4 · DOWN and 4 · ACROSS apart, so that neighbors read neighboring words.
const DEPTH: u32 = 16u;
const GROUP: u32 = ACROSS * DOWN;
const LEFT: u32 = ROWS * DOWN;
const RIGHT: u32 = COLUMNS * ACROSS;

// Four rows of op(A), or columns of op(B), at one k: [k][block].
var<workgroup> left: array<vec4<f32>, DEPTH * LEFT>;
var<workgroup> right: array<vec4<f32>, DEPTH * RIGHT>;

// Which of `count` × 4 blocks invocation `i` loads: x across, y in k. Neighbors take what is
// next to each other in memory.
fn block(i: u32, count: u32, rows_along_k: bool) -> vec2<u32> {
    if rows_along_k {
        return vec2<u32>(i / 4u, i % 4u * 4u);
    }
    return vec2<u32>(i % count, i / count * 4u);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let split = group.x % p.splits;
    let first_row = group.y * 4u * LEFT;
    let first_column = group.x / p.splits * 4u * RIGHT;
    let x = local % ACROSS;
    let y = local / ACROSS;
    let range = part(split);
    var sum: array<array<mat4x4<f32>, COLUMNS>, ROWS>;
    for (var k = range.x; k < range.y; k += DEPTH) {
        for (var i = local; i < 4u * LEFT; i += GROUP) {
            let at = block(i, LEFT, TRANS_A == 0u);
            let words = transpose(load_a(group.z, first_row + 4u * at.x, k + at.y, range.y));
            for (var l = 0u; l < 4u; l++) {
                left[(at.y + l) * LEFT + at.x] = words[l];
            }
        }
        for (var i = local; i < 4u * RIGHT; i += GROUP) {
            let at = block(i, RIGHT, TRANS_B == 1u);
            let words = load_b(group.z, k + at.y, first_column + 4u * at.x);
            for (var l = 0u; l < 4u; l++) {
                right[(at.y + l) * RIGHT + at.x] = words[l];
            }
        }
        workgroupBarrier();
        for (var l = 0u; l < DEPTH; l++) {
            var line = array<vec4<f32>, COLUMNS>();
            for (var j = 0u; j < COLUMNS; j++) {
                line[j] = right[l * RIGHT + j * ACROSS + x];
            }
            for (var i = 0u; i < ROWS; i++) {
                let factors = left[l * LEFT + i * DOWN + y];
                for (var j = 0u; j < COLUMNS; j++) {
                    sum[i][j][0] += line[j] * factors.x;
                    sum[i][j][1] += line[j] * factors.y;
                    sum[i][j][2] += line[j] * factors.z;
                    sum[i][j][3] += line[j] * factors.w;
                }
            }
        }
        workgroupBarrier();
    }
    var tile: array<vec4<f32>, 4u * ROWS * COLUMNS>;
    for (var i = 0u; i < ROWS; i++) {
        for (var j = 0u; j < COLUMNS; j++) {
            for (var l = 0u; l < 4u; l++) {
                tile[(i * 4u + l) * COLUMNS + j] = sum[i][j][l];
            }
        }
    }
    let row = first_row + 4u * y;
    let column = first_column + 4u * x;
    store_tile(&tile, group.z, split, row, column, 4u * DOWN, 4u * ACROSS);
}
