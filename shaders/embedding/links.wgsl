// Linked lists of the positions of a part that hold the same token, in rising order and counted
// from the part's first. link[v] is the first position of token v, link[vocabulary + i] the next
// one with the token of position i; 0xffffffff ends a list. Shapes: token [R, positions],
// link [R, vocabulary + n].
struct Params {
    n: u32,
    first: u32,
    positions: u32,
    vocabulary: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> token: array<u32>;
@group(0) @binding(2) var<storage, read_write> link: array<u32>;

const NONE: u32 = 0xffffffffu;

// The token at a position: clamped, a padding token stays itself.
fn token_at(at: u32) -> u32 {
    let code = token[at];
    return select(min(code, p.vocabulary - 1u), NONE, code == NONE);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_index(group, local);
    let words = p.vocabulary + p.n;
    if i >= words {
        return;
    }
    let first = group.z * p.positions + p.first;
    var wanted = i;
    var j = 0u;
    if i >= p.vocabulary {
        wanted = token_at(first + i - p.vocabulary);
        j = i - p.vocabulary + 1u;
    }
    // A padding token's list is never read: don't search for it.
    if wanted == NONE {
        j = p.n;
    }
    while j < p.n && token_at(first + j) != wanted {
        j += 1u;
    }
    link[group.z * words + i] = select(NONE, j, j < p.n);
}
