// A bijection of [0, count) for each key: a Feistel network on the smallest power of two that
// holds count, walked again while it leads outside (Black and Rogaway, "Ciphers with Arbitrary
// Finite Domains", CT-RSA 2002). Needs i < count.
fn permute(i: u32, count: u32, key: vec2<u32>) -> u32 {
    let bits = max(32u - countLeadingZeros(count - 1u), 2u);
    let low_bits = bits / 2u;
    let low_mask = (1u << low_bits) - 1u;
    let high_mask = (1u << (bits - low_bits)) - 1u;
    var x = i;
    // At least half of the domain lies inside, so a walk is short: 256 trips cover any domain
    // of up to 256 numbers for certain, and a larger one but for a chance of 2^-256.
    for (var trip = 0u; trip < 256u; trip++) {
        var high = x >> low_bits;
        var low = x & low_mask;
        for (var round = 0u; round < 6u; round += 2u) {
            high ^= (pcg4d(vec4<u32>(low, round, key)).x >> 16u) & high_mask;
            low ^= (pcg4d(vec4<u32>(high, round + 1u, key)).x >> 16u) & low_mask;
        }
        x = (high << low_bits) | low;
        if x < count {
            break;
        }
    }
    return min(x, count - 1u);
}
