// Which samples make up a batch or a part of it: index[b] = base + permutation(cursor + first + b),
// and 2^32 − 1 for the rows of a short batch that hold none. Shapes: state [R, 64], index [R, batch].
struct Params {
    batch: u32,
    first: u32,
    shuffle: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read_write> index: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let b = linear_index(group, local);
    if b >= p.batch {
        return;
    }
    let record = group.z * STATE_WORDS;
    var sample = 0xffffffffu;
    if p.first + b < state[record + STATE_ROWS] {
        sample = state[record + STATE_CURSOR] + p.first + b;
        if p.shuffle != 0u {
            let key = vec2<u32>(state[record + STATE_SEED], state[record + STATE_EPOCH]);
            sample = permute(sample, state[record + STATE_COUNT], key);
        }
        sample += state[record + STATE_BASE];
    }
    index[group.z * p.batch + b] = sample;
}
