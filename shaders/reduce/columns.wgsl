// out (+)= Σ over the rows of a part, for every column. x [R, rows, columns]; part q of the rows
// goes to out[q · columns]. One invocation a column; no workgroup memory.
struct Params {
    rows: u32,
    columns: u32,
    parts: u32,
    out_offset: u32,
    out_stride: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // The grid of columns and parts is folded past 65,535 workgroups a side.
    let block = group.y * 65535u + group.x;
    let across = (p.columns + GROUP - 1u) / GROUP;
    let part = block / across;
    let column = block % across * GROUP + local;
    if column >= p.columns || part >= p.parts {
        return;
    }
    let length = (p.rows + p.parts - 1u) / p.parts;
    let first = min(part * length, p.rows);
    let end = min(first + length, p.rows);
    let base = group.z * p.rows * p.columns + column;
    // Blocks of four chains: rounding errors grow with a chain's length.
    var total = vec4<f32>();
    for (var begin = first; begin < end; begin += 64u) {
        let last = min(begin + 64u, end);
        var sums = vec4<f32>();
        var row = begin;
        for (; row + 4u <= last; row += 4u) {
            let at = base + row * p.columns;
            sums += vec4<f32>(
                x[at], x[at + p.columns], x[at + 2u * p.columns], x[at + 3u * p.columns],
            );
        }
        for (; row < last; row++) {
            sums.x += x[base + row * p.columns];
        }
        total += sums;
    }
    let to = p.out_offset + group.z * p.out_stride + part * p.columns + column;
    var sum = (total.x + total.y) + (total.z + total.w);
    if p.accumulate != 0u {
        sum += out[to];
    }
    out[to] = sum;
}
