// Weight or bias gradient of the 2-D convolution, second half: the sum over the splits of
// columns [first, first + count) of each filter. Shapes: partial [R, splits, filters, columns],
// gradients [R, parameter_stride] with [filters, count] from offset on.
struct Params {
    splits: u32,
    filters: u32,
    columns: u32,
    first: u32,
    count: u32,
    offset: u32,
    parameter_stride: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradients: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.filters * p.count {
        return;
    }
    let column = i / p.count * p.columns + p.first + i % p.count;
    let size = p.filters * p.columns;
    var sum = 0.0;
    for (var s = 0u; s < p.splits; s++) {
        sum += partial[(group.z * p.splits + s) * size + column];
    }
    let to = group.z * p.parameter_stride + p.offset + i;
    gradients[to] = select(0.0, gradients[to], p.accumulate != 0u) + sum;
}
