// out = x as halves or bfloat16, two a word, rounded to the nearest, ties to even; by integers, since
// what the hardware's conversion rounds to is its own affair. Shapes: x [R, n], out [R, n / 2].
struct Params {
    n: u32,
    offset: u32,
    stride: u32,
    format: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

fn half_bits(value: f32) -> u32 {
    let word = bitcast<u32>(value);
    let sign = (word >> 16u) & 0x8000u;
    let size = word & 0x7fffffffu;
    if size > 0x7f800000u {
        return sign | 0x7e00u;
    }
    // From 65,520 on, infinity is nearer than the largest half.
    if size >= 0x477ff000u {
        return sign | 0x7c00u;
    }
    if size >= 0x38800000u {
        let rounded = size + 0xfffu + ((size >> 13u) & 1u);
        return sign | ((rounded - 0x38000000u) >> 13u);
    }
    // Below 2^-14 a half counts in steps of 2^-24. Shifts of 32 and more mean nothing in WGSL.
    let exponent = size >> 23u;
    if exponent < 102u {
        return sign;
    }
    let shift = 126u - exponent;
    let digits = (size & 0x7fffffu) | 0x800000u;
    let kept = digits >> shift;
    let rest = digits & ((1u << shift) - 1u);
    let middle = 1u << (shift - 1u);
    let up = rest > middle || (rest == middle && (kept & 1u) == 1u);
    return sign | (kept + select(0u, 1u, up));
}

fn bf16_bits(value: f32) -> u32 {
    let word = bitcast<u32>(value);
    if (word & 0x7fffffffu) > 0x7f800000u {
        return (word >> 16u) | 0x40u;
    }
    return (word + 0x7fffu + ((word >> 16u) & 1u)) >> 16u;
}

fn bits(value: f32) -> u32 {
    if p.format == 0u {
        return half_bits(value);
    }
    return bf16_bits(value);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = linear_index(group, local);
    if at >= p.n / 2u {
        return;
    }
    let first = p.offset + group.z * p.stride + 2u * at;
    out[group.z * (p.n / 2u) + at] = bits(x[first]) | (bits(x[first + 1u]) << 16u);
}
