// dlogits (+)= dloss · normalizer · (s · softmax(logits) - (1 - e) w[t] · onehot(t) - e / classes · w)
// with e the smoothing and s the sum of the weights that row_sums has; zero where the target t is
// 0xffffffff. Shapes: logits, dlogits [R, rows, classes], target [R, rows], weights [R, classes],
// row_sums [R, rows, 3], normalizer, dloss [R].
struct Params {
    rows: u32,
    classes: u32,
    smoothing: f32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> target_class: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> row_sums: array<f32>;
@group(0) @binding(5) var<storage, read> normalizer: array<f32>;
@group(0) @binding(6) var<storage, read> dloss: array<f32>;
@group(0) @binding(7) var<storage, read_write> dlogits: array<f32>;

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
        let c = i % p.classes;
        let w = weights[group.z * p.classes + c];
        let x = logits[at] - row_sums[3u * row];
        let own = select(0.0, 1.0 - p.smoothing, c == min(class_index, p.classes - 1u));
        let target_share = w * (own + p.smoothing / f32(p.classes));
        let probability = exp(x - row_sums[3u * row + 1u]);
        g = dloss[group.z] * normalizer[group.z]
            * (row_sums[3u * row + 2u] * probability - target_share);
    }
    if p.accumulate != 0u {
        g += dlogits[at];
    }
    dlogits[at] = g;
}
