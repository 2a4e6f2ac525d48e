// dx (+)= scale · dy where dropout/forward kept the element, else 0; the mask is computed
// again, not stored. Shapes: dy, dx [R, n], state [R, 64].
struct Params {
    n: u32,
    threshold: u32,
    scale: f32,
    operation: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> state: array<u32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.n + i;
    var g = select(0.0, p.scale * dy[at], kept(group.z, i));
    if p.accumulate != 0u {
        g += dx[at];
    }
    dx[at] = g;
}
