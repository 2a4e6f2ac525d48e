// total (+)= Σ over clients of words, mod 2^32 (or a smaller power of two), four words an
// invocation. Shapes: words [R, clients, n], total [R, n].
struct Params {
    n: u32,
    clients: u32,
    modulus_mask: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> total: array<vec4<u32>>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    let quads = p.n / 4u;
    if i >= quads {
        return;
    }
    let at = group.z * quads + i;
    var sum = vec4<u32>(0u);
    if p.accumulate != 0u {
        sum = total[at];
    }
    for (var c = group.z * p.clients; c < (group.z + 1u) * p.clients; c += 1u) {
        sum += words[c * quads + i];
    }
    total[at] = sum & vec4<u32>(p.modulus_mask);
}
