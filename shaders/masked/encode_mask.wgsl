// words = fixed point of x + masks, mod 2^32 (or a smaller power of two), one ChaCha20 block
// of 16 words an invocation. Shapes: x [R, stride], masks [R, count, 12], words [R, n].
struct Params {
    n: u32,
    stride: u32,
    count: u32,
    counter: u32,
    fraction_bits: u32,
    bound: u32,
    modulus_mask: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> masks: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> words: array<vec4<u32>>;

fn encode(v: f32) -> u32 {
    var q = fixed64(abs(v), 1u, p.fraction_bits);
    var magnitude = p.bound;
    if q.y == 0u {
        magnitude = min(q.x, p.bound);
    }
    return select(magnitude, 0u - magnitude, (bitcast<u32>(v) >> 31u) != 0u);
}

fn encode4(v: vec4<f32>) -> vec4<u32> {
    return vec4<u32>(encode(v.x), encode(v.y), encode(v.z), encode(v.w));
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let block = linear_index(group, local);
    if block >= p.n / 16u {
        return;
    }
    let source_at = group.z * (p.stride / 4u) + 4u * block;
    let codes = Block(
        encode4(x[source_at]),
        encode4(x[source_at + 1u]),
        encode4(x[source_at + 2u]),
        encode4(x[source_at + 3u]),
    );
    let sum = add_masks(codes, group.z * p.count, p.count, p.counter + block);
    let target_at = group.z * (p.n / 4u) + 4u * block;
    words[target_at] = sum.a & vec4<u32>(p.modulus_mask);
    words[target_at + 1u] = sum.b & vec4<u32>(p.modulus_mask);
    words[target_at + 2u] = sum.c & vec4<u32>(p.modulus_mask);
    words[target_at + 3u] = sum.d & vec4<u32>(p.modulus_mask);
}
