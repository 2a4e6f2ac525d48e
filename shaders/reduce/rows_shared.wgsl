// out[m] = sum, maximum or mean of row m. x [R, rows, columns], out [R, rows]. One workgroup a
// row.
struct Params {
    rows: u32,
    columns: u32,
    kind: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // The grid folds rows into y past 65,535; a workgroup past the end repeats the last row.
    let row = min(row_of(group, local), p.rows - 1u);
    let base = (group.z * p.rows + row) * p.columns;
    var result = reduce_start(p.kind, x[base]);
    for (var at = local; at < p.columns; at += GROUP) {
        result = reduce_pair(p.kind, result, x[base + at]);
    }
    if p.kind == 1u {
        result = row_max(local, result);
    } else {
        result = row_sum(local, result);
    }
    if local == 0u {
        out[group.z * p.rows + row] = reduce_end(p.kind, result, p.columns);
    }
}
