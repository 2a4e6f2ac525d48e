// y = x or y += x on a block of rows × width, each side with an offset, a distance between
// rows and a distance between replicas: slices, joins along the last axis, flat buffers.
// Shapes: x [R, x_stride], y [R, y_stride].
struct Params {
    rows: u32,
    width: u32,
    x_offset: u32,
    x_row: u32,
    x_stride: u32,
    y_offset: u32,
    y_row: u32,
    y_stride: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.rows * p.width {
        return;
    }
    let row = i / p.width;
    let column = i % p.width;
    let at = group.z * p.y_stride + p.y_offset + row * p.y_row + column;
    var value = x[group.z * p.x_stride + p.x_offset + row * p.x_row + column];
    if p.accumulate != 0u {
        value += y[at];
    }
    y[at] = value;
}
