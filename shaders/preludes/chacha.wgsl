// ChaCha20 (RFC 8439), four columns at a time; the same as shaders/src/kernels/chacha.rs.
// Needs the binding `masks`: [.., 12] words, a mask being 8 key words, 3 nonce words and a
// sign, 1 to add the stream or 0xffffffff to subtract it.
struct Block {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

fn rotate_left(x: vec4<u32>, by: u32) -> vec4<u32> {
    return (x << vec4<u32>(by)) | (x >> vec4<u32>(32u - by));
}

fn quarter_rounds(s: Block) -> Block {
    var r = s;
    r.a += r.b;
    r.d = rotate_left(r.d ^ r.a, 16u);
    r.c += r.d;
    r.b = rotate_left(r.b ^ r.c, 12u);
    r.a += r.b;
    r.d = rotate_left(r.d ^ r.a, 8u);
    r.c += r.d;
    r.b = rotate_left(r.b ^ r.c, 7u);
    return r;
}

fn chacha_block(key0: vec4<u32>, key1: vec4<u32>, counter: u32, nonce: vec3<u32>) -> Block {
    // "expand 32-byte k"
    let constants = vec4<u32>(0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u);
    let start = Block(constants, key0, key1, vec4<u32>(counter, nonce));
    var s = start;
    for (var i = 0u; i < 10u; i += 1u) {
        s = quarter_rounds(s);
        // The diagonals become columns, and back.
        s = quarter_rounds(Block(s.a, s.b.yzwx, s.c.zwxy, s.d.wxyz));
        s = Block(s.a, s.b.wxyz, s.c.zwxy, s.d.yzwx);
    }
    return Block(s.a + start.a, s.b + start.b, s.c + start.c, s.d + start.d);
}

// `words` plus `count` masks from the table's entry `first` on, mod 2^32: the 16 words of
// block `counter`.
fn add_masks(words: Block, first: u32, count: u32, counter: u32) -> Block {
    var sum = words;
    for (var m = first; m < first + count; m += 1u) {
        // An entry is three vec4: key, key, (nonce, sign).
        let tail = masks[3u * m + 2u];
        let s = chacha_block(masks[3u * m], masks[3u * m + 1u], counter, tail.xyz);
        sum.a += tail.w * s.a;
        sum.b += tail.w * s.b;
        sum.c += tail.w * s.c;
        sum.d += tail.w * s.d;
    }
    return sum;
}
