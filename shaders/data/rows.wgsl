// x[b] = source[index[b]], row by row; 0 where index is 2^32 − 1. Shapes: source
// [samples, width], index [R, batch], x [R, batch, width].
struct Params {
    batch: u32,
    width: u32,
    samples: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.batch * p.width {
        return;
    }
    let sample = index[group.z * p.batch + i / p.width];
    let at = min(sample, p.samples - 1u) * p.width + i % p.width;
    x[group.z * p.batch * p.width + i] = select(source[at], 0.0, sample == 0xffffffffu);
}
