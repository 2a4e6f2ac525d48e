// x /= count over [offset, offset + n), and 0 where the count is. Shapes: count [R], x [R, stride].
struct Params {
    offset: u32,
    n: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> count: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.stride + p.offset + i;
    let divisor = count[group.z];
    let none = divisor == 0.0;
    x[at] = select(x[at] / select(divisor, 1.0, none), 0.0, none);
}
