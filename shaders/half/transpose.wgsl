// out = xᵀ of numbers of 16 bits, two a word: an invocation turns two rows and two columns, a workgroup
// 8 by 8 of these, so that 32 bytes of a row are read and written together. Shapes: x
// [R, rows, columns / 2], out [R, columns, rows / 2].
struct Params {
    rows: u32,
    columns: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let down = p.rows / 2u;
    let across = p.columns / 2u;
    let tiles = (across + 7u) / 8u;
    let tile = group.y * 65535u + group.x;
    let i = tile / tiles * 8u + local / 8u;
    let j = tile % tiles * 8u + local % 8u;
    if i >= down || j >= across {
        return;
    }
    let replica = group.z * p.rows * across;
    let start = replica + 2u * i * across + j;
    let upper = x[start];
    let lower = x[start + across];
    let end = replica + 2u * j * down + i;
    out[end] = (upper & 0xffffu) | (lower << 16u);
    out[end + down] = (upper >> 16u) | (lower & 0xffff0000u);
}
