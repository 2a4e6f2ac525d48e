// At the end of a step with a scaled loss: its factor shrinks after a step that was skipped and grows
// after many that were not. One invocation a replica. Shapes: state [R, 64].
struct Params {
    growth: f32,
    backoff: f32,
    interval: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> state: array<u32>;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let record = group.z * STATE_WORDS;
    let scale = bitcast<f32>(state[record + STATE_LOSS_SCALE]);
    var changed = scale;
    if state[record + STATE_SKIPS] != 0u {
        state[record + STATE_SKIPS] = 0u;
        state[record + STATE_SKIPPED] += 1u;
        state[record + STATE_ACTIVE] = 1u;
        changed = max(scale * p.backoff, 1.0);
    } else {
        let steady = state[record + STATE_STEADY] + state[record + STATE_ACTIVE];
        if state[record + STATE_ACTIVE] == 0u || steady < p.interval {
            state[record + STATE_STEADY] = steady;
            return;
        }
        changed = scale * p.growth;
    }
    state[record + STATE_STEADY] = 0u;
    if (bitcast<u32>(changed) & 0x7fffffffu) < 0x7f800000u {
        state[record + STATE_LOSS_SCALE] = bitcast<u32>(changed);
    }
}
