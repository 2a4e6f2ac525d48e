// rank = classes that come before the target: larger logit, on a tie the lower index;
// 0xffffffff where the target is ignored. Shapes: logits [R, rows, classes], target, ranks
// [R, rows].
struct Params {
    rows: u32,
    classes: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> target_class: array<u32>;
@group(0) @binding(3) var<storage, read_write> ranks: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let at = group.z * p.rows + row;
    let first = at * p.classes;
    let class_index = target_class[at];
    let place = min(class_index, p.classes - 1u);
    let own = Best(logits[first + place], place);
    var ahead = 0.0;
    for (var c = lane; c < p.classes; c += LANES) {
        if before(Best(logits[first + c], c), own) {
            ahead += 1.0;
        }
    }
    // Exact: a row has fewer than 2^24 classes.
    let total = u32(row_sum(local, ahead));
    if lane == 0u {
        ranks[at] = select(total, 0xffffffffu, class_index == 0xffffffffu);
    }
}
