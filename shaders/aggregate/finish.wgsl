// mean = total / (weight · 2^fraction_bits), correctly rounded: a long division of integers.
// Shapes: total [R, n, 2], low word first, mean [R, stride].
struct Params {
    n: u32,
    stride: u32,
    weight_low: u32,
    weight_high: u32,
    fraction_bits: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> total: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;

// Moves the highest set bit to bit 62. Bit 63 is set in 2^63 alone, so that nothing is lost.
fn normalize(a: vec2<u32>, zeros: u32) -> vec2<u32> {
    if zeros == 0u {
        return shift_right64(a, 1u);
    }
    return shift_left64(a, zeros - 1u);
}

fn divide(sum: vec2<u32>) -> f32 {
    let weight = vec2<u32>(p.weight_low, p.weight_high);
    if all(sum == vec2<u32>(0u)) || all(weight == vec2<u32>(0u)) {
        return 0.0;
    }
    let negative = (sum.y >> 31u) != 0u;
    var magnitude = sum;
    if negative {
        magnitude = negate64(sum);
    }
    let zeros = leading_zeros64(magnitude);
    let weight_zeros = leading_zeros64(weight);
    let divisor = normalize(weight, weight_zeros);
    var remainder = normalize(magnitude, zeros);
    // 26 bits of a quotient between 1/2 and 2: 24 to keep, one or two to round by.
    var quotient = 0u;
    for (var bit = 0u; bit < 26u; bit += 1u) {
        quotient <<= 1u;
        if !less64(remainder, divisor) {
            remainder = add64(remainder, negate64(divisor));
            quotient |= 1u;
        }
        remainder = shift_left64(remainder, 1u);
    }
    let extra = 26u - countLeadingZeros(quotient << 6u) - 24u;
    let kept = quotient >> extra;
    let half = 1u << (extra - 1u);
    let dropped = quotient & (2u * half - 1u);
    let rest = any(remainder != vec2<u32>(0u));
    let up = dropped > half || (dropped == half && (rest || (kept & 1u) != 0u));
    // quotient / 2^25 · 2^(weight_zeros - zeros - fraction_bits), kept in [2^23, 2^24); a carry
    // out of the kept bits moves into the exponent by itself.
    let exponent = 127u + extra + weight_zeros - zeros - p.fraction_bits - 2u;
    let bits = (exponent << 23u) + (kept & 0x7fffffu) + select(0u, 1u, up);
    return bitcast<f32>(bits | select(0u, 0x80000000u, negative));
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    if i >= p.n {
        return;
    }
    mean[group.z * p.stride + i] = divide(total[group.z * p.n + i]);
}
