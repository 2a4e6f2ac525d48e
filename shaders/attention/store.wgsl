// cache[place] = x, row by row; a place past the cache's rows leaves the row out. Shapes: x
// [R, n, width], place [R, n], cache [R, rows, width].
struct Params {
    n: u32,
    width: u32,
    rows: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> place: array<u32>;
@group(0) @binding(3) var<storage, read_write> cache: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n * p.width {
        return;
    }
    let row = place[group.z * p.n + i / p.width];
    if row < p.rows {
        cache[(group.z * p.rows + row) * p.width + i % p.width] = x[group.z * p.n * p.width + i];
    }
}
