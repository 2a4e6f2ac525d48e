// dlogits (+)= dloss · (softmax(logits) - onehot(target)) / max(count, 1), zero where the
// target is 0xffffffff; log_sum is of all classes. Shapes: logits, dlogits [R, rows, classes], target [R, rows],
// log_sum [R, rows, 2], count, dloss [R].
struct Params {
    rows: u32,
    classes: u32,
    accumulate: u32,
    first: u32,
    all: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> target_class: array<u32>;
@group(0) @binding(3) var<storage, read> log_sum: array<f32>;
@group(0) @binding(4) var<storage, read> count: array<f32>;
@group(0) @binding(5) var<storage, read> dloss: array<f32>;
@group(0) @binding(6) var<storage, read_write> dlogits: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.rows * p.classes {
        return;
    }
    let row = group.z * p.rows + i / p.classes;
    let at = group.z * p.rows * p.classes + i;
    let class_index = target_class[row];
    var g = 0.0;
    if class_index != 0xffffffffu {
        let hit = p.first + i % p.classes == min(class_index, p.all - 1u);
        let scale = dloss[group.z] / max(count[group.z], 1.0);
        let x = logits[at] - log_sum[2u * row];
        g = scale * (exp(x - log_sum[2u * row + 1u]) - select(0.0, 1.0, hit));
    }
    if p.accumulate != 0u {
        g += dlogits[at];
    }
    dlogits[at] = g;
}
