// out (+)= Σ over the rows of a part, for every column. x [R, rows, columns]; part q of the rows
// goes to out[q · columns]. A workgroup takes 32 columns; its invocations, 8 to a column, add up
// through workgroup memory.
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

const STRIPS: u32 = GROUP / ACROSS;
var<workgroup> sums: array<f32, GROUP>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // The grid of columns and parts is folded past 65,535 workgroups a side.
    let block = group.y * 65535u + group.x;
    let across = (p.columns + ACROSS - 1u) / ACROSS;
    let part = block / across;
    if part >= p.parts {
        return;
    }
    let column = block % across * ACROSS + local % ACROSS;
    let length = (p.rows + p.parts - 1u) / p.parts;
    let first = min(part * length, p.rows);
    let end = min(first + length, p.rows);
    let base = group.z * p.rows * p.columns + min(column, p.columns - 1u);
    var sum = 0.0;
    for (var row = first + local / ACROSS; row < end; row += STRIPS) {
        sum += x[base + row * p.columns];
    }
    sums[local] = sum;
    for (var half = GROUP / 2u; half >= ACROSS; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local] += sums[local + half];
        }
    }
    // The last sums are of the invocation's own column: no barrier needed.
    if local < ACROSS && column < p.columns {
        let to = p.out_offset + group.z * p.out_stride + part * p.columns + column;
        out[to] = select(0.0, out[to], p.accumulate != 0u) + sums[local];
    }
}
