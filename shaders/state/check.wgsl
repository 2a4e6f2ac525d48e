// Before the update of a training step: a replica whose loss is not a number, or whose gradient's
// norm is not finite, fails and rests, or rests for this step alone if that may be the loss's factor.
// One invocation a replica. Shapes: state [R, 64], loss, norm [R].
struct Params {
    clipped: u32,
    initial: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> state: array<u32>;
@group(0) @binding(2) var<storage, read> loss: array<f32>;
@group(0) @binding(3) var<storage, read> norm: array<f32>;

const INFINITY: u32 = 0x7f800000u;

// The bits of the absolute value: compilers may take x == x for true.
fn size(x: f32) -> u32 {
    return bitcast<u32>(x) & 0x7fffffffu;
}

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let r = group.z;
    let record = r * STATE_WORDS;
    let lost = size(loss[r]) > INFINITY;
    let failed = lost || (p.clipped != 0u && size(norm[r]) >= INFINITY);
    if state[record + STATE_ACTIVE] == 0u || !failed {
        return;
    }
    let recorded = state[record + STATE_LOSS_SCALE];
    let scale = select(bitcast<f32>(recorded), p.initial, recorded == 0u);
    let skips = p.initial != 0.0 && !lost && scale > 1.0;
    state[record + STATE_ACTIVE] = 0u;
    state[record + select(STATE_FAILED, STATE_SKIPS, skips)] = 1u;
}
