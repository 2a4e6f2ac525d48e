// The factor on each replica's loss in this step. One invocation a replica. Shapes: state [R, 64], out [R].
struct Params {
    initial: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let recorded = state[group.z * STATE_WORDS + STATE_LOSS_SCALE];
    out[group.z] = select(bitcast<f32>(recorded), p.initial, recorded == 0u);
}
