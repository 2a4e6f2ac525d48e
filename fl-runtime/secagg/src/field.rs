//! The field of p = 2^61 − 1, over which secrets are shared. Arithmetic takes the same time
//! whatever the numbers.

/// The field's modulus.
pub(crate) const P: u64 = (1 << 61) - 1;

/// x mod p of x ≤ p + 1.
fn once_reduced(x: u64) -> u64 {
    let less = x.wrapping_sub(P);
    // All ones where the subtraction went below zero.
    let below = (less >> 63).wrapping_neg();
    (x & below) | (less & !below)
}

pub(crate) fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    once_reduced((sum & P) + (sum >> 61))
}

pub(crate) fn sub(a: u64, b: u64) -> u64 {
    add(a, P - b)
}

pub(crate) fn mul(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    add(product as u64 & P, (product >> 61) as u64)
}

/// 1 / x by Fermat's little theorem, x^(p − 2). 0 gives 0.
pub(crate) fn inverse(x: u64) -> u64 {
    let (mut power, mut result) = (x, 1);
    // p − 2 = 2^61 − 3: all bits but the second lowest.
    for bit in 0..61 {
        if bit != 1 {
            result = mul(result, power);
        }
        power = mul(power, power);
    }
    result
}
