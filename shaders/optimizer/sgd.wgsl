// SGD with momentum over [offset, offset + n), as torch.optim.SGD. Shapes: parameters, gradients, moment1 [R, stride], state [R, 64], clip [R]. Offset and stride are
// multiples of 4.
struct Params {
    offset: u32,
    n: u32,
    stride: u32,
    momentum: f32,
    fresh: f32,
    nesterov: u32,
    weight_decay: f32,
    scale: f32,
    clipped: u32,
    rate: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> parameters: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> moment1: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(5) var<storage, read> clip: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    let record = group.z * STATE_WORDS;
    if 4u * i >= p.n || state[record + STATE_ACTIVE] == 0u {
        return;
    }
    let at = (group.z * p.stride + p.offset) / 4u + i;
    let rate = p.rate * bitcast<f32>(state[record + STATE_RATE]);
    let w = parameters[at];
    let old = moment1[at];
    let scale = select(p.scale, p.scale * clip[group.z], p.clipped != 0u);
    let g = scale * gradients[at] + p.weight_decay * w;
    // The first update starts the momentum, whatever an earlier training left in the buffer.
    let first = state[record + STATE_STEP] == state[record + STATE_SKIPPED];
    let m = select(p.momentum * old + p.fresh * g, g, vec4<bool>(first));
    let d = select(m, g + p.momentum * m, vec4<bool>(p.nesterov != 0u));
    let inside = lanes(i, p.n);
    moment1[at] = select(old, m, inside);
    parameters[at] = select(w, w - rate * d, inside);
}
