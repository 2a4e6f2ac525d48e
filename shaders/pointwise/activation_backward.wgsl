// dx (+)= dy · f'(x), element by element. Shapes: all [R, n].
struct Params {
    n: u32,
    kind: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.n + i;
    var g = dy[at] * activate_gradient(p.kind, x[at], y[at]);
    if p.accumulate != 0u {
        g += dx[at];
    }
    dx[at] = g;
}
