// At the end of a step with a scaled loss: its factor shrinks after a step that was skipped and grows
// after many that were not. One invocation a replica. Shapes: state [R, 64].
struct Params {
    initial: f32,
    growth: f32,
    backoff: f32,
    interval: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> state: array<u32>;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let record = group.z * STATE_WORDS;
    if state[record + STATE_ACTIVE] == 0u && state[record + STATE_SKIPS] == 0u {
        return;
    }
    let recorded = state[record + STATE_LOSS_SCALE];
    let scale = select(bitcast<f32>(recorded), p.initial, recorded == 0u);
    var changed = scale;
    var steady = 0u;
    if state[record + STATE_SKIPS] != 0u {
        state[record + STATE_SKIPS] = 0u;
        state[record + STATE_SKIPPED] += 1u;
        state[record + STATE_ACTIVE] = 1u;
        changed = max(scale * p.backoff, 1.0);
    } else {
        steady = state[record + STATE_STEADY] + 1u;
        if steady >= p.interval {
            steady = 0u;
            changed = scale * p.growth;
        }
    }
    state[record + STATE_STEADY] = steady;
    let is_finite = (bitcast<u32>(changed) & 0x7fffffffu) < 0x7f800000u;
    state[record + STATE_LOSS_SCALE] = bitcast<u32>(select(scale, changed, is_finite));
}
