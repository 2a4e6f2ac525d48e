// Adam (L2 decay) and AdamW (decoupled decay) over [offset, offset + n), as in torch.optim, by the
// second moment that `divisor` gives. Shapes: parameters, gradients, moment1, moment2 [R, stride],
// state [R, 64], clip [R]. Offset and stride are multiples of 4. fresh = 1 − β, log_beta = ln β.
struct Params {
    offset: u32,
    n: u32,
    stride: u32,
    fresh1: f32,
    fresh2: f32,
    log_beta1: f32,
    log_beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    decoupled: u32,
    scale: f32,
    clipped: u32,
    rate: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> parameters: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> moment1: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> moment2: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> state: array<u32>;
@group(0) @binding(6) var<storage, read> clip: array<f32>;

// 1 − eˣ for x ≤ 0. Near zero the difference would cancel, so the series is summed there: its
// first dropped term is below 2e-8 of the result for x > −1/2.
fn one_minus_exp(x: f32) -> f32 {
    let series = 1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0
        * (1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0))))));
    return select(1.0 - exp(x), -x * series, x > -0.5);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    let record = group.z * STATE_WORDS;
    if 4u * i >= p.n || state[record + STATE_ACTIVE] == 0u {
        return;
    }
    let at = (group.z * p.stride + p.offset) / 4u + i;
    let step = state[record + STATE_STEP] - state[record + STATE_SKIPPED];
    let rate = p.rate * bitcast<f32>(state[record + STATE_RATE]);
    let t = f32(step + 1u);
    let correction1 = one_minus_exp(t * p.log_beta1);
    let correction2 = sqrt(one_minus_exp(t * p.log_beta2));

    let w = parameters[at];
    let old1 = moment1[at];
    let old2 = moment2[at];
    let scale = select(p.scale, p.scale * clip[group.z], p.clipped != 0u);
    let l2 = select(p.weight_decay, 0.0, p.decoupled != 0u);
    let shrink = select(0.0, rate * p.weight_decay, p.decoupled != 0u);
    let g = scale * gradients[at] + l2 * w;
    // The first step starts from zero, whatever an earlier training left in the buffers.
    let first = vec4<bool>(step == 0u);
    let from1 = select(old1, vec4<f32>(0.0), first);
    let from2 = select(old2, vec4<f32>(0.0), first);
    let m = from1 + p.fresh1 * (g - from1);
    // What is past the largest number stays there; ∞ - ∞ would be no number.
    let v = select(from2 + p.fresh2 * (g * g - from2), from2, from2 >= vec4<f32>(3.4e38));
    let inside = lanes(i, p.n);
    let by = divisor(at, v, step == 0u, inside);
    let d = m / (sqrt(by) / correction2 + p.epsilon);
    moment1[at] = select(old1, m, inside);
    moment2[at] = select(old2, v, inside);
    parameters[at] = select(w, w - shrink * w - rate / correction1 * d, inside);
}
