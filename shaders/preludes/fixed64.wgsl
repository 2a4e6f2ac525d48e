// 64-bit integers as vec2 (low word, high word), and f32 to fixed point by integer
// arithmetic on the bits alone; the same numbers as shaders/src/kernels/fixed.rs.
fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn negate64(a: vec2<u32>) -> vec2<u32> {
    return add64(~a, vec2<u32>(1u, 0u));
}

fn less64(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// a << by, for by below 64.
fn shift_left64(a: vec2<u32>, by: u32) -> vec2<u32> {
    if by == 0u {
        return a;
    }
    if by >= 32u {
        return vec2<u32>(0u, a.x << (by - 32u));
    }
    return vec2<u32>(a.x << by, (a.y << by) | (a.x >> (32u - by)));
}

// a >> by without sign, for by below 64.
fn shift_right64(a: vec2<u32>, by: u32) -> vec2<u32> {
    if by == 0u {
        return a;
    }
    if by >= 32u {
        return vec2<u32>(a.y >> (by - 32u), 0u);
    }
    return vec2<u32>((a.x >> by) | (a.y << (32u - by)), a.y >> by);
}

fn leading_zeros64(a: vec2<u32>) -> u32 {
    return select(countLeadingZeros(a.y), 32u + countLeadingZeros(a.x), a.y == 0u);
}

// a · b in full.
fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let low = al * bl;
    let cross0 = al * bh;
    let cross1 = ah * bl;
    let middle = (low >> 16u) + (cross0 & 0xffffu) + (cross1 & 0xffffu);
    let high = ah * bh + (cross0 >> 16u) + (cross1 >> 16u) + (middle >> 16u);
    return vec2<u32>((middle << 16u) | (low & 0xffffu), high);
}

// x · weight · 2^fraction_bits (fraction_bits up to 62) to the nearest integer, half to even,
// two's complement; magnitudes from 2^62 on become 2^62 - 1, and what is not finite 0.
fn fixed64(x: f32, weight: u32, fraction_bits: u32) -> vec2<u32> {
    let bits = bitcast<u32>(x);
    let exponent = (bits >> 23u) & 0xffu;
    // Zero and what is too small to count, infinite, NaN.
    if exponent == 0u || exponent == 0xffu {
        return vec2<u32>(0u);
    }
    // Below 2^56, to be multiplied by 2^(exponent + fraction_bits - 150).
    let product = multiply_wide((bits & 0x7fffffu) | 0x800000u, weight);
    let scaled = exponent + fraction_bits;
    var magnitude = vec2<u32>(0u);
    if scaled >= 150u {
        let by = scaled - 150u;
        if by < 62u && all(shift_right64(product, 62u - by) == vec2<u32>(0u)) {
            magnitude = shift_left64(product, by);
        } else if any(product != vec2<u32>(0u)) {
            magnitude = vec2<u32>(0xffffffffu, 0x3fffffffu);
        }
    } else if scaled >= 94u {
        // One bit more than is kept decides, with whether anything is left below it.
        let by = 149u - scaled;
        let doubled = shift_right64(product, by);
        let rest = any(shift_left64(doubled, by) != product);
        magnitude = shift_right64(doubled, 1u);
        if (doubled.x & 1u) != 0u && (rest || (magnitude.x & 1u) != 0u) {
            magnitude = add64(magnitude, vec2<u32>(1u, 0u));
        }
    }
    if (bits >> 31u) != 0u {
        return negate64(magnitude);
    }
    return magnitude;
}
