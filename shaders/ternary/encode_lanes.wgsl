// Codes to lanes of `bits` bits, as many as fit a word, code + 1 in each, the first element
// lowest; lanes past the vector's end are 0. Shapes: codes [R, n / 16], lanes [R, words].
struct Params {
    n: u32,
    words: u32,
    bits: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(2) var<storage, read_write> lanes: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let word = linear_index(group, local);
    if word >= p.words {
        return;
    }
    let per_word = 32u / p.bits;
    let first = word * per_word;
    var packed = 0u;
    for (var lane = 0u; lane < per_word; lane += 1u) {
        let i = first + lane;
        if i < p.n {
            let code = (codes[group.z * (p.n / 16u) + i / 16u] >> (2u * (i % 16u))) & 3u;
            packed |= (1u + (code & 1u) - (code >> 1u)) << (lane * p.bits);
        }
    }
    lanes[group.z * p.words + word] = packed;
}
