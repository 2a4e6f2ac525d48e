// db (+)= Σ over the rows from `first` to `end` of dy · ∂y/∂b of pointwise/binary_forward.
// Shapes: a, dy [R, rows, period], db [R, period].
struct Params {
    rows: u32,
    period: u32,
    kind: u32,
    accumulate: u32,
    first: u32,
    end: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> db: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = column_of(group, local);
    let lane = lane_of(local);
    var sum = 0.0;
    // No return before the reduction: it has barriers.
    if column < p.period {
        for (var begin = p.first + lane; begin < p.end; begin += BLOCK) {
            let last = min(begin + BLOCK, p.end);
            var block = 0.0;
            for (var row = begin; row < last; row += LANES) {
                let at = (group.z * p.rows + row) * p.period + column;
                switch p.kind {
                    case 0u: { block += dy[at]; }
                    case 1u: { block -= dy[at]; }
                    default: { block += dy[at] * a[at]; }
                }
            }
            sum += block;
        }
    }
    sum = column_sum(local, sum);
    if lane == 0u && column < p.period {
        let at = group.z * p.period + column;
        if p.accumulate != 0u {
            sum += db[at];
        }
        db[at] = sum;
    }
}
