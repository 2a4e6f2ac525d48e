// dx (+)= dloss · ℓ'(x, t) / (width · max(count, 1)), zero from row `count` on.
// Shapes: x, target_value, dx [R, rows, width], count, dloss [R].
struct Params {
    rows: u32,
    width: u32,
    kind: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> target_value: array<f32>;
@group(0) @binding(3) var<storage, read> count: array<f32>;
@group(0) @binding(4) var<storage, read> dloss: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.rows * p.width {
        return;
    }
    let at = group.z * p.rows * p.width + i;
    let valid = count[group.z];
    var g = 0.0;
    if f32(i / p.width) < valid {
        let scale = dloss[group.z] / (f32(p.width) * max(valid, 1.0));
        if p.kind == 1u {
            g = scale * (sigmoid(x[at]) - target_value[at]);
        } else {
            g = scale * 2.0 * (x[at] - target_value[at]);
        }
    }
    if p.accumulate != 0u {
        g += dx[at];
    }
    dx[at] = g;
}
