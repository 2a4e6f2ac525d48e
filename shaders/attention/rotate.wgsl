// Rotary position embedding: y (+)= (a cos - b sin, b cos + a sin) of the halves a, b of each head
// of x; `inverse` turns back. Shapes: x, y [R, rows, heads, 2 · pairs], table
// [R, positions, 2, pairs] (cosines, sines), position [R, rows].
struct Params {
    rows: u32,
    heads: u32,
    pairs: u32,
    positions: u32,
    inverse: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;
@group(0) @binding(3) var<storage, read> position: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.rows * p.heads * p.pairs {
        return;
    }
    let pair = i % p.pairs;
    let row = i / p.pairs / p.heads;
    let place = min(position[group.z * p.rows + row], p.positions - 1u);
    let angle = 2u * (group.z * p.positions + place) * p.pairs + pair;
    let cosine = table[angle];
    let sine = select(1.0, -1.0, p.inverse != 0u) * table[angle + p.pairs];
    let head = group.z * p.rows * p.heads + i / p.pairs;
    let at = head * 2u * p.pairs + pair;
    let a = x[at];
    let b = x[at + p.pairs];
    var left = a * cosine - b * sine;
    var right = b * cosine + a * sine;
    if p.accumulate != 0u {
        left += y[at];
        right += y[at + p.pairs];
    }
    y[at] = left;
    y[at + p.pairs] = right;
}
