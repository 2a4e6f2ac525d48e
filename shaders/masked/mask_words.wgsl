// words += masks, mod 2^32 (or a smaller power of two), in place, one ChaCha20 block of 16
// words an invocation. Shapes: masks [R, count, 12], words [R, n].
struct Params {
    n: u32,
    count: u32,
    counter: u32,
    modulus_mask: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> masks: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> words: array<vec4<u32>>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let block = linear_index(group, local);
    if block >= p.n / 16u {
        return;
    }
    let at = group.z * (p.n / 4u) + 4u * block;
    let plain = Block(words[at], words[at + 1u], words[at + 2u], words[at + 3u]);
    let sum = add_masks(plain, group.z * p.count, p.count, p.counter + block);
    words[at] = sum.a & vec4<u32>(p.modulus_mask);
    words[at + 1u] = sum.b & vec4<u32>(p.modulus_mask);
    words[at + 2u] = sum.c & vec4<u32>(p.modulus_mask);
    words[at + 3u] = sum.d & vec4<u32>(p.modulus_mask);
}
