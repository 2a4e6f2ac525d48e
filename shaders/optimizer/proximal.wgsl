// g += μ · (w − w_ref) over [offset, offset + n). Shapes: parameters, gradients [R, stride],
// reference [reference_stride] or [R, reference_stride]. Offset and strides are multiples of 4.
struct Params {
    offset: u32,
    n: u32,
    stride: u32,
    reference_stride: u32,
    mu: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parameters: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> reference: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> gradients: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if 4u * i >= p.n {
        return;
    }
    let at = (group.z * p.stride + p.offset) / 4u + i;
    let anchor = reference[(group.z * p.reference_stride + p.offset) / 4u + i];
    let g = gradients[at];
    gradients[at] = select(g, g + p.mu * (parameters[at] - anchor), lanes(i, p.n));
}
