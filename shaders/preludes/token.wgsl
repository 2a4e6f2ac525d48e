// The token at a position of a stream `tokens` of p.length tokens: one a word, or four a word
// with the first in the lowest byte where p.packed is 1.
fn token(position: u32) -> u32 {
    let at = min(position, p.length - 1u);
    if p.packed != 0u {
        return (tokens[at / 4u] >> (8u * (at % 4u))) & 255u;
    }
    return tokens[at];
}
