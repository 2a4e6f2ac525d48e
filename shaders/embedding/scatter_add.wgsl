// dtable[v, :] (+)= Σ dy[i, :] over the positions i of a part that hold token v, in rising order:
// one invocation owns each element and walks the list of embedding/links, so no atomics.
// Shapes: dtable [vocabulary, width] inside the flat gradients, link [R, vocabulary + n],
// dy [R, positions, width].
struct Params {
    n: u32,
    first: u32,
    positions: u32,
    width: u32,
    vocabulary: u32,
    table_offset: u32,
    table_stride: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> link: array<u32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradients: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.vocabulary * p.width {
        return;
    }
    let column = i % p.width;
    let links = group.z * (p.vocabulary + p.n);
    let at = group.z * p.table_stride + p.table_offset + i;
    var sum = 0.0;
    var j = link[links + i / p.width];
    while j < p.n {
        sum += dy[(group.z * p.positions + p.first + j) * p.width + column];
        j = link[links + p.vocabulary + j];
    }
    if p.accumulate != 0u {
        sum += gradients[at];
    }
    gradients[at] = sum;
}
