// out[m] = sum, maximum or mean of row m. x [R, rows, columns], out [R, rows]. One invocation a
// row; no workgroup memory.
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
    let row = linear_index(group, local);
    if row >= p.rows {
        return;
    }
    let base = (group.z * p.rows + row) * p.columns;
    var result = reduce_start(p.kind, x[base]);
    // Blocks, because rounding errors grow with the length of a chain.
    for (var first = 0u; first < p.columns; first += 256u) {
        let end = min(first + 256u, p.columns);
        var block = reduce_start(p.kind, x[base]);
        var at = first;
        for (; at + 4u <= end; at += 4u) {
            let front = reduce_pair(p.kind, x[base + at], x[base + at + 1u]);
            let back = reduce_pair(p.kind, x[base + at + 2u], x[base + at + 3u]);
            block = reduce_pair(p.kind, block, reduce_pair(p.kind, front, back));
        }
        for (; at < end; at++) {
            block = reduce_pair(p.kind, block, x[base + at]);
        }
        result = reduce_pair(p.kind, result, block);
    }
    out[group.z * p.rows + row] = reduce_end(p.kind, result, p.columns);
}
