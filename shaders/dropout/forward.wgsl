// y = scale · x where the element is kept, else 0; kept is an integer comparison of the
// counter-based stream, so every device keeps the same. Shapes: x, y [R, n], state [R, 64].
struct Params {
    n: u32,
    threshold: u32,
    scale: f32,
    operation: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> state: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.n + i;
    y[at] = select(0.0, p.scale * x[at], kept(group.z, i));
}
