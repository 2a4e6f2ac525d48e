// Text windows: sample s covers the tokens from starts[s] on, lens[s] of them; row b of the
// batch takes sample index[b]. The target at t is the token at t + 1, 2^32 − 1 past the
// window's end. Shapes: tokens [length], packed or not; starts, lens [samples]; index
// [R, batch]; inputs, targets [R, steps, batch].
struct Params {
    batch: u32,
    steps: u32,
    length: u32,
    samples: u32,
    padding: u32,
    packed: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> starts: array<u32>;
@group(0) @binding(3) var<storage, read> lens: array<u32>;
@group(0) @binding(4) var<storage, read> index: array<u32>;
@group(0) @binding(5) var<storage, read_write> inputs: array<u32>;
@group(0) @binding(6) var<storage, read_write> targets: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.steps * p.batch {
        return;
    }
    let sample = index[group.z * p.batch + i % p.batch];
    let known = min(sample, p.samples - 1u);
    let t = i / p.batch;
    let len = select(lens[known], 0u, sample == 0xffffffffu);
    let position = starts[known] + t;
    let at = group.z * p.steps * p.batch + i;
    inputs[at] = select(p.padding, token(position), t < len);
    targets[at] = select(0xffffffffu, token(position + 1u), t + 1u < len);
}
