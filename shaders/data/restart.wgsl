// What a step of long text starts from: y = x, the state that the last step left, and 0 where the
// text starts over. Shapes: x, y [R, n]; state [R, 64].
struct Params {
    n: u32,
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
    let over = state[group.z * STATE_WORDS + STATE_CURSOR] == 0u;
    y[group.z * p.n + i] = select(x[group.z * p.n + i], 0.0, over);
}
