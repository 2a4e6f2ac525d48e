// Long text read in order: from base on it is cut into `batch` parts of count · steps tokens,
// and row b reads `steps` tokens of part b from cursor · steps on. Targets are the next
// tokens, 2^32 − 1 in rows past the batch's. Shapes: tokens [length], packed or not; state
// [R, 64]; inputs, targets [R, steps, batch].
struct Params {
    batch: u32,
    steps: u32,
    length: u32,
    padding: u32,
    packed: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> state: array<u32>;
@group(0) @binding(3) var<storage, read_write> inputs: array<u32>;
@group(0) @binding(4) var<storage, read_write> targets: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.steps * p.batch {
        return;
    }
    let record = group.z * STATE_WORDS;
    let b = i % p.batch;
    let window = b * state[record + STATE_COUNT] + state[record + STATE_CURSOR];
    let position = state[record + STATE_BASE] + window * p.steps + i / p.batch;
    let valid = b < state[record + STATE_ROWS];
    let at = group.z * p.steps * p.batch + i;
    inputs[at] = select(p.padding, token(position), valid);
    targets[at] = select(0xffffffffu, token(position + 1u), valid);
}
