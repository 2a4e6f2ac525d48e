// Cross-entropy with weights w of the classes and label smoothing e: row_loss = normalizer ·
// ((1 - e) w[t] · -log p[t] + e / classes · Σ_c w[c] · -log p[c]), zero where the target t is
// 0xffffffff; row_sums are the largest logit, the logarithm of the sum of the rest's exponentials,
// and the sum of the weights that the gradient takes. Shapes: logits [R, rows, classes], target,
// row_loss [R, rows], weights [R, classes], normalizer [R], row_sums [R, rows, 3].
struct Params {
    rows: u32,
    classes: u32,
    smoothing: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> target_class: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> normalizer: array<f32>;
@group(0) @binding(5) var<storage, read_write> row_loss: array<f32>;
@group(0) @binding(6) var<storage, read_write> row_sums: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let at = group.z * p.rows + row;
    let first = at * p.classes;
    let first_weight = group.z * p.classes;
    var largest = -3.4e38;
    for (var c = lane; c < p.classes; c += LANES) {
        largest = max(largest, logits[first + c]);
    }
    largest = row_max(local, largest);
    var sum = 0.0;
    var weight_sum = 0.0;
    var weighted = 0.0;
    for (var c = lane; c < p.classes; c += LANES) {
        let x = logits[first + c] - largest;
        let w = weights[first_weight + c];
        sum += exp(x);
        weight_sum += w;
        weighted += w * x;
    }
    sum = row_sum(local, sum);
    weight_sum = row_sum(local, weight_sum);
    weighted = row_sum(local, weighted);
    if lane == 0u {
        let class_index = target_class[at];
        let place = min(class_index, p.classes - 1u);
        let rest = log(sum);
        let own = (1.0 - p.smoothing) * weights[first_weight + place];
        let share = p.smoothing / f32(p.classes);
        var loss = own * (rest - (logits[first + place] - largest));
        // Not 0 · ∞ without smoothing.
        if p.smoothing != 0.0 {
            loss += share * (weight_sum * rest - weighted);
        }
        row_loss[at] = select(normalizer[group.z] * loss, 0.0, class_index == 0xffffffffu);
        row_sums[3u * at] = largest;
        row_sums[3u * at + 1u] = rest;
        row_sums[3u * at + 2u] = own + share * weight_sum;
    }
}
