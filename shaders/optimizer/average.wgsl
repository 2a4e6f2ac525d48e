// average += fresh · (w − average) over [offset, offset + n), and w in the first step. Shapes:
// parameters, average [R, stride], state [R, 64]. Offset and stride are multiples of 4.
struct Params {
    offset: u32,
    n: u32,
    stride: u32,
    fresh: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parameters: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> average: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> state: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    let record = group.z * STATE_WORDS;
    if 4u * i >= p.n || state[record + STATE_ACTIVE] == 0u {
        return;
    }
    let at = (group.z * p.stride + p.offset) / 4u + i;
    let w = parameters[at];
    let old = average[at];
    // The first update starts the average, whatever an earlier training left in the buffer.
    let first = vec4<bool>(state[record + STATE_STEP] == state[record + STATE_SKIPPED]);
    let next = select(old + p.fresh * (w - old), w, first);
    average[at] = select(old, next, lanes(i, p.n));
}
