// dweight (+)= Σ over the rows from `first` to `end` of dy · x · rrms. Shapes: x, dy [R, rows, width], rrms
// [R, rows], dweight [width] inside the flat gradients.
struct Params {
    rows: u32,
    width: u32,
    weight_offset: u32,
    stride: u32,
    accumulate: u32,
    first: u32,
    end: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> rrms: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> gradients: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = column_of(group, local);
    let lane = lane_of(local);
    var sum = 0.0;
    // No return before the reduction: it has barriers.
    if column < p.width {
        for (var begin = p.first + lane; begin < p.end; begin += BLOCK) {
            let last = min(begin + BLOCK, p.end);
            var block = 0.0;
            for (var row = begin; row < last; row += LANES) {
                let at = group.z * p.rows + row;
                block += dy[at * p.width + column] * x[at * p.width + column] * rrms[at];
            }
            sum += block;
        }
    }
    sum = column_sum(local, sum);
    if lane == 0u && column < p.width {
        let at = group.z * p.stride + p.weight_offset + column;
        if p.accumulate != 0u {
            sum += gradients[at];
        }
        gradients[at] = sum;
    }
}
