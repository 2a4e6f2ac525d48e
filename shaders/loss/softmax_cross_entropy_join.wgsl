// row_loss and log_sum of a part of the classes and of those before it become those of both: row_loss is the
// logarithm of the sum of exponentials less the target's logit, where that is known, log_sum the logarithm as
// largest logit and rest. Shapes: part_loss, target, row_loss [R, rows], part_sum, log_sum [R, rows, 2].
struct Params {
    rows: u32,
    classes: u32,
    first: u32,
    all: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part_loss: array<f32>;
@group(0) @binding(2) var<storage, read> part_sum: array<f32>;
@group(0) @binding(3) var<storage, read> target_class: array<u32>;
@group(0) @binding(4) var<storage, read_write> row_loss: array<f32>;
@group(0) @binding(5) var<storage, read_write> log_sum: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = linear_index(group, local);
    if row >= p.rows {
        return;
    }
    let at = group.z * p.rows + row;
    let largest = max(log_sum[2u * at], part_sum[2u * at]);
    let known = log_sum[2u * at] - largest + log_sum[2u * at + 1u];
    let part = part_sum[2u * at] - largest + part_sum[2u * at + 1u];
    let rest = log(exp(known) + exp(part));
    let class_index = min(target_class[at], p.all - 1u);
    // The logarithm grows, and with it the distance from the target's logit.
    var loss = 0.0;
    if class_index < p.first {
        loss = row_loss[at] + (rest - known);
    } else if class_index - p.first < p.classes {
        loss = part_loss[at] + (rest - part);
    }
    row_loss[at] = select(loss, 0.0, target_class[at] == 0xffffffffu);
    log_sum[2u * at] = largest;
    log_sum[2u * at + 1u] = rest;
}
