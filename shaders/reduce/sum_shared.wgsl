// out[q] = scale · Σ of part q of x. x [R, n], out [R, parts]. One workgroup a part.
struct Params {
    n: u32,
    parts: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // The grid folds parts into y past 65,535; a workgroup past the end repeats the last part.
    let part = min(row_of(group, local), p.parts - 1u);
    let length = (p.n + p.parts - 1u) / p.parts;
    let end = min((part + 1u) * length, p.n);
    var sum = 0.0;
    for (var at = part * length + local; at < end; at += GROUP) {
        sum += x[group.z * p.n + at];
    }
    sum = row_sum(local, sum);
    if local == 0u {
        out[group.z * p.parts + part] = p.scale * sum;
    }
}
