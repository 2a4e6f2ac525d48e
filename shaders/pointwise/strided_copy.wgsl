// Elements of x to places of y, both by strides of up to four axes:
// y[Σ iₖ·y_strideₖ] (+)= x[Σ iₖ·x_strideₖ]. Strides wrap, so that an axis can run backward, and are 0
// where x repeats. Shapes: x [R, x_replica], y [R, y_replica].
struct Params {
    size0: u32,
    size1: u32,
    size2: u32,
    size3: u32,
    x_offset: u32,
    x_stride0: u32,
    x_stride1: u32,
    x_stride2: u32,
    x_stride3: u32,
    x_replica: u32,
    y_offset: u32,
    y_stride0: u32,
    y_stride1: u32,
    y_stride2: u32,
    y_stride3: u32,
    y_replica: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.size0 * p.size1 * p.size2 * p.size3 {
        return;
    }
    let i3 = i % p.size3;
    let rows = i / p.size3;
    let i2 = rows % p.size2;
    let planes = rows / p.size2;
    let i1 = planes % p.size1;
    let i0 = planes / p.size1;
    let source = group.z * p.x_replica + p.x_offset
        + i0 * p.x_stride0 + i1 * p.x_stride1 + i2 * p.x_stride2 + i3 * p.x_stride3;
    let place = group.z * p.y_replica + p.y_offset
        + i0 * p.y_stride0 + i1 * p.y_stride1 + i2 * p.y_stride2 + i3 * p.y_stride3;
    var value = x[source];
    if p.accumulate != 0u {
        value += y[place];
    }
    y[place] = value;
}
