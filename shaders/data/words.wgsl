// x[b] = source[index[b]], row by row; padding where index is 2^32 − 1. Shapes: source
// [samples, width], index [R, batch], x [R, batch, width], or [R, width, batch] where
// time_major is 1.
struct Params {
    batch: u32,
    width: u32,
    samples: u32,
    padding: u32,
    time_major: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
@group(0) @binding(3) var<storage, read_write> x: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.batch * p.width {
        return;
    }
    let major = p.time_major != 0u;
    let row = select(i / p.width, i % p.batch, major);
    let column = select(i % p.width, i / p.batch, major);
    let sample = index[group.z * p.batch + row];
    let at = min(sample, p.samples - 1u) * p.width + column;
    x[group.z * p.batch * p.width + i] = select(source[at], p.padding, sample == 0xffffffffu);
}
