// row_loss = log Σ_c exp(logits[c]) - logits[target], zero where the target is 0xffffffff or none of
// these classes; log_sum is the logarithm as largest logit and rest. Shapes: logits
// [R, rows, classes], target, row_loss [R, rows], log_sum [R, rows, 2].
struct Params {
    rows: u32,
    classes: u32,
    first: u32,
    all: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> target_class: array<u32>;
@group(0) @binding(3) var<storage, read_write> row_loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> log_sum: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let at = group.z * p.rows + row;
    let first = at * p.classes;
    var largest = -3.4e38;
    for (var c = lane; c < p.classes; c += LANES) {
        largest = max(largest, logits[first + c]);
    }
    largest = row_max(local, largest);
    var sum = 0.0;
    for (var c = lane; c < p.classes; c += LANES) {
        sum += exp(logits[first + c] - largest);
    }
    sum = row_sum(local, sum);
    if lane == 0u {
        // Classes before the first wrap around and are past the last, too.
        let class_index = min(target_class[at], p.all - 1u) - p.first;
        let is_here = target_class[at] != 0xffffffffu && class_index < p.classes;
        let rest = log(sum);
        let chosen = logits[first + min(class_index, p.classes - 1u)] - largest;
        row_loss[at] = select(0.0, rest - chosen, is_here);
        log_sum[2u * at] = largest;
        log_sum[2u * at + 1u] = rest;
    }
}
