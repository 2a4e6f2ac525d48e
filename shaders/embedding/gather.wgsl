// y[i, :] = table[token[i], :], zero at a padding token.
// Shapes: table [vocabulary, width] inside the flat parameters, token [R, n], y [R, n, width].
struct Params {
    n: u32,
    width: u32,
    vocabulary: u32,
    table_offset: u32,
    table_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parameters: array<f32>;
@group(0) @binding(2) var<storage, read> token: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n * p.width {
        return;
    }
    let code = token[group.z * p.n + i / p.width];
    let row = min(code, p.vocabulary - 1u);
    let table = group.z * p.table_stride + p.table_offset;
    var value = parameters[table + row * p.width + i % p.width];
    if code == 0xffffffffu {
        value = 0.0;
    }
    y[group.z * p.n * p.width + i] = value;
}
