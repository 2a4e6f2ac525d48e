// row_loss = mean over the row of ℓ(x, t), zero from row `count` on.
// Shapes: x, target_value [R, rows, width], count [R], row_loss [R, rows].
struct Params {
    rows: u32,
    width: u32,
    kind: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> target_value: array<f32>;
@group(0) @binding(3) var<storage, read> count: array<f32>;
@group(0) @binding(4) var<storage, read_write> row_loss: array<f32>;

// The kinds of shaders/src/kernels/loss.rs.
fn element_loss(a: f32, t: f32) -> f32 {
    if p.kind == 1u {
        let e = exp(-abs(a));
        // log(1 + e) loses everything below half an ulp of 1; e itself is exact there.
        let log_sigmoid = select(0.0, a, a < 0.0) - select(log(1.0 + e), e, e < 1e-4);
        return (1.0 - t) * a - log_sigmoid;
    }
    return (a - t) * (a - t);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group, local);
    if row >= p.rows {
        return;
    }
    let lane = lane_of(local);
    let at = group.z * p.rows + row;
    var sum = 0.0;
    for (var c = lane; c < p.width; c += LANES) {
        sum += element_loss(x[at * p.width + c], target_value[at * p.width + c]);
    }
    sum = row_sum(local, sum);
    if lane == 0u {
        row_loss[at] = select(0.0, sum / f32(p.width), f32(row) < count[group.z]);
    }
}
