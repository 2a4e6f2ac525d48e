// Before the update of a training step: a replica whose loss is not a number, or whose gradient's
// norm is not finite, fails and rests. One invocation a replica. Shapes: state [R, 64], loss, norm
// [R].
struct Params {
    clipped: u32,
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
    let failed = size(loss[r]) > INFINITY || (p.clipped != 0u && size(norm[r]) >= INFINITY);
    if state[record + STATE_ACTIVE] != 0u && failed {
        state[record + STATE_ACTIVE] = 0u;
        state[record + STATE_FAILED] = 1u;
    }
}
