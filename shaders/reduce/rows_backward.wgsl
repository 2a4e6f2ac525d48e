// dx (+)= gradient of a row's sum, maximum or mean; a maximum's goes to the first element that
// attains it. x, dx [R, rows, columns]; y, dy [R, rows]. One invocation an element.
struct Params {
    rows: u32,
    columns: u32,
    kind: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;

// Whether an element is its row's maximum, which is NaN if an element is.
fn attains(element: f32, most: f32) -> bool {
    return element == most || (element != element && most != most);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.rows * p.columns {
        return;
    }
    let row = group.z * p.rows + i / p.columns;
    let column = i % p.columns;
    let base = row * p.columns;
    var gradient = dy[row];
    if p.kind == 2u {
        gradient /= f32(p.columns);
    }
    if p.kind == 1u {
        var first = select(0u, 1u, attains(x[base + column], y[row]));
        let earlier = select(0u, column, first == 1u);
        for (var at = 0u; at < earlier && first == 1u; at++) {
            first = select(1u, 0u, attains(x[base + at], y[row]));
        }
        gradient = select(0.0, gradient, first == 1u);
    }
    if p.accumulate != 0u {
        gradient += dx[base + column];
    }
    dx[base + column] = gradient;
}
