// The k largest of each row, largest first, ties by lower index. Each pass takes the first
// candidate that comes after the previous pass's, so nothing is kept but that one.
// Shapes: x [R, rows, classes], values, places [R, rows, k].
struct Params {
    rows: u32,
    classes: u32,
    k: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> places: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let at = group.z * p.rows + row;
    var previous = Best(0.0, 0u);
    for (var k = 0u; k < p.k; k += 1u) {
        var best = Best(0.0, NOWHERE);
        for (var c = lane; c < p.classes; c += LANES) {
            let candidate = Best(x[at * p.classes + c], c);
            if (k == 0u || before(previous, candidate)) && before(candidate, best) {
                best = candidate;
            }
        }
        previous = row_best(local, best);
        if lane == 0u {
            values[at * p.k + k] = previous.value;
            places[at * p.k + k] = previous.place;
        }
    }
}
