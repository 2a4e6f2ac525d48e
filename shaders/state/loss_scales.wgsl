// The factor on each replica's loss in this step; a record that has none begins with one. One invocation a
// replica. Shapes: state [R, 64], out [R].
struct Params {
    initial: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> state: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let at = group.z * STATE_WORDS + STATE_LOSS_SCALE;
    if state[at] == 0u {
        state[at] = bitcast<u32>(p.initial);
    }
    out[group.z] = bitcast<f32>(state[at]);
}
