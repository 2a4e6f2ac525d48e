// count = rows of the current batch that hold samples, from the first on. Shapes: state [R, 64], count [R].
struct Params {
    first: u32,
    rows: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read_write> count: array<f32>;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let rows = state[group.z * STATE_WORDS + STATE_ROWS];
    count[group.z] = f32(min(max(rows, p.first) - p.first, p.rows));
}
