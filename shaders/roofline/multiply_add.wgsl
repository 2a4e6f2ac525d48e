// Each x becomes four numbers in eight chains of `rounds` multiply-adds, none of which waits for
// another; y is the sum of all 32. Number and Four say of what type. Shapes: x, y [R, n].
struct Params {
    n: u32,
    rounds: u32,
    factor: f32,
    summand: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = linear_index(group, local);
    if at >= p.n {
        return;
    }
    let factor = Four(Number(p.factor));
    let summand = Four(Number(p.summand));
    // All different, so that no compiler computes one for another.
    var a = Four(Number(x[group.z * p.n + at])) + Four(0.0, 0.25, 0.5, 0.75);
    var b = a + Four(1.0);
    var c = a + Four(2.0);
    var d = a + Four(3.0);
    var e = a + Four(4.0);
    var f = a + Four(5.0);
    var g = a + Four(6.0);
    var h = a + Four(7.0);
    // A software device masks what a turn of the loop changes: eight rounds for one mask.
    for (var i = 0u; i < p.rounds; i += 8u) {
        for (var j = 0u; j < 8u; j++) {
            a = fma(a, factor, summand);
            b = fma(b, factor, summand);
            c = fma(c, factor, summand);
            d = fma(d, factor, summand);
            e = fma(e, factor, summand);
            f = fma(f, factor, summand);
            g = fma(g, factor, summand);
            h = fma(h, factor, summand);
        }
    }
    let sum = a + b + c + d + e + f + g + h;
    y[group.z * p.n + at] = f32(sum.x + sum.y + sum.z + sum.w);
}
