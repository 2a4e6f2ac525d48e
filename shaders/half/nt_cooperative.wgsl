// C = A·Bᵀ + (bias or C) by cooperative matrices of 16 × 16: halves in, sums of 32 bits. A subgroup
// keeps SIDE × SIDE of them, and reads A and B straight from the cache that it shares with its
// neighbors; the subgroups of a workgroup share out PARTS × PARTS such tiles. M and N are multiples
// of a subgroup's tile, K of 16.
//
// Elements of a cooperative matrix can't be reached, so sums begin at what is added. What one
// invocation writes none other reads: naga writes no memory semantics for the model of memory that
// these matrices need, in which barriers make nothing visible by themselves.
@group(0) @binding(1) var<storage, read> a: array<f16>;
@group(0) @binding(2) var<storage, read> b: array<f16>;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

const TILE: u32 = 16u * SIDE;

fn multiply(replica: u32, row: u32, column: u32) {
    let left_base = p.a_offset + replica * p.a_stride + row * p.a_row;
    let right_base = p.b_offset + replica * p.b_stride + column * p.b_row;
    let to = p.c_offset + replica * p.c_stride + row * p.c_row + column;
    // Names of their own: naga takes no expression for a stride.
    let line = p.c_row;
    // All rows are the bias.
    let same = 0u;
    var sums: array<array<Sum, SIDE>, SIDE>;
    if p.accumulate != 0u {
        for (var i = 0u; i < SIDE; i++) {
            for (var j = 0u; j < SIDE; j++) {
                let at = to + 16u * (i * line + j);
                sums[i][j] = coopLoadT<Sum>(&c[at], line);
            }
        }
    } else if p.has_bias != 0u {
        let first = p.bias_offset + replica * p.bias_stride + column;
        for (var j = 0u; j < SIDE; j++) {
            let rows = coopLoadT<Sum>(&bias[first + 16u * j], same);
            for (var i = 0u; i < SIDE; i++) {
                sums[i][j] = rows;
            }
        }
    }
    for (var k = 0u; k < p.k; k += 16u) {
        // Rows of B are columns of op(B).
        var right: array<Right, SIDE>;
        for (var j = 0u; j < SIDE; j++) {
            right[j] = coopLoad<Right>(&b[right_base + 16u * j * p.b_row + k], p.b_row);
        }
        for (var i = 0u; i < SIDE; i++) {
            let left = coopLoadT<Left>(&a[left_base + 16u * i * p.a_row + k], p.a_row);
            for (var j = 0u; j < SIDE; j++) {
                sums[i][j] = coopMultiplyAdd(left, right[j], sums[i][j]);
            }
        }
    }
    for (var i = 0u; i < SIDE; i++) {
        for (var j = 0u; j < SIDE; j++) {
            let at = to + 16u * (i * line + j);
            let sum = sums[i][j];
            coopStoreT(sum, &c[at], line);
        }
    }
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let row = group.y * PARTS * TILE;
    let column = group.x * PARTS * TILE;
    for (var part = subgroup; part < PARTS * PARTS; part += subgroups) {
        let y = row + part / PARTS * TILE;
        let x = column + part % PARTS * TILE;
        if y < p.m && x < p.n {
            multiply(group.z, y, x);
        }
    }
}
