// running += momentum · (of the batch − running), of means and of variances, the latter times
// length / (length − 1). Shapes: moments [R, 2, channels], running mean and variance [channels] inside
// the flat parameters, state [R, 64].
struct Params {
    channels: u32,
    mean_offset: u32,
    variance_offset: u32,
    stride: u32,
    momentum: f32,
    correction: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> moments: array<f32>;
@group(0) @binding(2) var<storage, read> state: array<u32>;
@group(0) @binding(3) var<storage, read_write> parameters: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let channel = linear_index(group, local);
    if channel >= p.channels || state[group.z * STATE_WORDS + STATE_ACTIVE] == 0u {
        return;
    }
    let batch = group.z * 2u * p.channels + channel;
    let mean = group.z * p.stride + p.mean_offset + channel;
    let variance = group.z * p.stride + p.variance_offset + channel;
    let unbiased = p.correction * moments[batch + p.channels];
    parameters[mean] += p.momentum * (moments[batch] - parameters[mean]);
    parameters[variance] += p.momentum * (unbiased - parameters[variance]);
}
