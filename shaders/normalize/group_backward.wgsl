// dx (+)= (γ · dy − (Σ γ · dy + x̂ · Σ γ · dy · x̂) / length) / √(variance + ε); without the sums where
// the moments are fixed. Shapes: x, dy, dx [R, n], moments, sums [R, 2, groups], γ [channels] inside
// the flat parameters. γ's mode is that of dx.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> moments: array<f32>;
@group(0) @binding(3) var<storage, read> sums: array<f32>;
@group(0) @binding(4) var<storage, read> parameters: array<f32>;
@group(0) @binding(5) var<storage, read> dy: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= elements() {
        return;
    }
    let at = group.z * elements() + i;
    let mean = mean_at(group.z, group_of(i));
    let inverse = 1.0 / sqrt(moments[mean + p.groups] + p.epsilon);
    var d = dy[at] * parameters[gamma_at(group.z, channel_of(i))];
    if p.fixed == 0u {
        let normal = (x[at] - moments[mean]) * inverse;
        d -= (sums[mean] + normal * sums[mean + p.groups]) / f32(p.runs * p.run);
    }
    d *= inverse;
    if p.gamma_mode != 0u {
        d += dx[at];
    }
    dx[at] = d;
}
