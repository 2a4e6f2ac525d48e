// dx (+)= dy σ(x) (1 + x (1 − σ(x))). Shapes: x, dy, dx [R, n].
struct Params {
    n: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.n + i;
    let s = 1.0 / (1.0 + exp(-max(x[at], -80.0)));
    let before = select(0.0, dx[at], p.accumulate != 0u);
    dx[at] = before + dy[at] * s * (1.0 + x[at] * (1.0 - s));
}
