// y = (x − mean) / √(variance + ε) · γ + β by the moments of each group and the weights of each
// channel. Shapes: x, y [R, n], moments [R, 2, groups], γ, β [channels] inside the flat parameters.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> moments: array<f32>;
@group(0) @binding(3) var<storage, read> parameters: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= elements() {
        return;
    }
    let at = group.z * elements() + i;
    let mean = mean_at(group.z, group_of(i));
    let channel = channel_of(i);
    let inverse = 1.0 / sqrt(moments[mean + p.groups] + p.epsilon);
    let normal = (x[at] - moments[mean]) * inverse;
    y[at] = normal * parameters[gamma_at(group.z, channel)] + parameters[beta_at(group.z, channel)];
}
