// dγ (+)= Σ over the rows from `first` to `end` of dy · x̂, dβ (+)= Σ dy. Each has a mode: 0
// overwrites, 1 adds, 2 leaves it alone. Shapes: x, dy [R, rows, width], mean, rstd [R, rows], dγ and dβ
// [width] inside the flat gradients.
struct Params {
    rows: u32,
    width: u32,
    gamma_offset: u32,
    beta_offset: u32,
    stride: u32,
    gamma_mode: u32,
    beta_mode: u32,
    first: u32,
    end: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> rstd: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> gradients: array<f32>;

fn store(at: u32, value: f32, mode: u32) {
    switch mode {
        case 0u: { gradients[at] = value; }
        case 1u: { gradients[at] += value; }
        default: {}
    }
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = column_of(group, local);
    let lane = lane_of(local);
    var gamma = 0.0;
    var beta = 0.0;
    // No return before the reductions: they have barriers.
    if column < p.width {
        for (var begin = p.first + lane; begin < p.end; begin += BLOCK) {
            let last = min(begin + BLOCK, p.end);
            var block = vec2<f32>();
            for (var row = begin; row < last; row += LANES) {
                let at = group.z * p.rows + row;
                let g = dy[at * p.width + column];
                block += g * vec2<f32>((x[at * p.width + column] - mean[at]) * rstd[at], 1.0);
            }
            gamma += block.x;
            beta += block.y;
        }
    }
    gamma = column_sum(local, gamma);
    beta = column_sum(local, beta);
    if lane == 0u && column < p.width {
        let flat = group.z * p.stride + column;
        store(flat + p.gamma_offset, gamma, p.gamma_mode);
        store(flat + p.beta_offset, beta, p.beta_mode);
    }
}
