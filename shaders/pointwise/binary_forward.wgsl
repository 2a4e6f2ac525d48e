// y = a ∘ b; b repeats every `period` elements (a row vector), or not at all (period = n).
// Shapes: a, y [R, n], b [R, period].
struct Params {
    n: u32,
    period: u32,
    kind: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    let at = group.z * p.n + i;
    let left = a[at];
    let right = b[group.z * p.period + i % p.period];
    switch p.kind {
        case 0u: { y[at] = left + right; }
        case 1u: { y[at] = left - right; }
        default: { y[at] = left * right; }
    }
}
