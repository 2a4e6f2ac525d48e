// dx (+)= dy where the condition is not 0 (side 1) or where it is (side 0), else 0. Shapes: all [R, n].
struct Params {
    n: u32,
    side: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> condition: array<u32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.n + i;
    let chosen = (condition[at] != 0u) == (p.side != 0u);
    var value = select(0.0, dy[at], chosen);
    if p.accumulate != 0u {
        value += dx[at];
    }
    dx[at] = value;
}
