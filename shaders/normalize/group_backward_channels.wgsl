// dγ (+)= Σ dy · x̂ and dβ (+)= Σ dy of each channel, x̂ = (x − mean) / √(variance + ε). Shapes: x, dy
// [R, n], moments [R, 2, groups], γ, β [channels] inside the flat gradients. A mode of 0 overwrites,
// 1 adds, 2 leaves alone.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> moments: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> gradients: array<f32>;

fn put(at: u32, value: f32, mode: u32) {
    if mode == 0u {
        gradients[at] = value;
    } else if mode == 1u {
        gradients[at] += value;
    }
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let channel = row_of(group, local);
    if channel >= p.channels {
        return;
    }
    let lane = lane_of(local);
    let first = group.z * elements();
    var plain = 0.0;
    var weighted = 0.0;
    for (var i = lane; i < elements() / p.channels; i += LANES) {
        let at = ((i / p.pixels) * p.channels + channel) * p.pixels + i % p.pixels;
        let mean = mean_at(group.z, group_of(at));
        let inverse = 1.0 / sqrt(moments[mean + p.groups] + p.epsilon);
        let d = dy[first + at];
        plain += d;
        weighted += d * (x[first + at] - moments[mean]) * inverse;
    }
    plain = row_sum(local, plain);
    weighted = row_sum(local, weighted);
    if lane == 0u {
        put(gamma_at(group.z, channel), weighted, p.gamma_mode);
        put(beta_at(group.z, channel), plain, p.beta_mode);
    }
}
