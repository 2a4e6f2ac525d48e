// mean = weight · (words + masks) as signed fixed point, one ChaCha20 block of 16 words an
// invocation. Shapes: words [R, n], masks [R, count, 12], mean [R, stride].
struct Params {
    n: u32,
    stride: u32,
    count: u32,
    counter: u32,
    modulus_mask: u32,
    weight: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> masks: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> mean: array<vec4<f32>>;

fn decode(sum: vec4<u32>) -> vec4<f32> {
    let word = sum & vec4<u32>(p.modulus_mask);
    let negative = word > vec4<u32>(p.modulus_mask >> 1u);
    // The negative of a word mod a power of two is its complement plus one, masked again.
    let opposite = (~word + 1u) & vec4<u32>(p.modulus_mask);
    let magnitude = select(word, opposite, negative);
    // Both halves are exact floats, so that there is one rounding, the addition's.
    let high = vec4<f32>(magnitude >> vec4<u32>(16u)) * 65536.0;
    let value = high + vec4<f32>(magnitude & vec4<u32>(0xffffu));
    return p.weight * select(value, -value, negative);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let block = linear_index(group, local);
    if block >= p.n / 16u {
        return;
    }
    let source_at = group.z * (p.n / 4u) + 4u * block;
    let masked = Block(
        words[source_at],
        words[source_at + 1u],
        words[source_at + 2u],
        words[source_at + 3u],
    );
    let sum = add_masks(masked, group.z * p.count, p.count, p.counter + block);
    let target_at = group.z * (p.stride / 4u) + 4u * block;
    mean[target_at] = decode(sum.a);
    mean[target_at + 1u] = decode(sum.b);
    mean[target_at + 2u] = decode(sum.c);
    mean[target_at + 3u] = decode(sum.d);
}
