//! Floats to fixed point and back, by integer arithmetic alone, so that every device gets the
//! same bits.
//!
//! ```rust
//! use tern_shaders::kernels::fixed::{fixed64, mean, signed_word};
//!
//! // With 4 bits after the point: 0.5 · 16, three times.
//! let total = fixed64(0.5, 3, 4);
//! assert_eq!(total, 24);
//! assert_eq!(mean(total, 3, 4), 0.5);
//! // Words of 8 bits: 255 is −1.
//! assert_eq!(signed_word(255, 0xff), -1.0);
//! ```

/// Largest number of fraction bits that [`fixed64`] and [`mean`] take.
pub const MAX_FRACTION_BITS: u32 = 62;
/// Largest magnitude of a term: what is larger saturates.
pub const MAX_TERM: u64 = (1 << 62) - 1;

/// x · weight · 2^fraction_bits to the nearest integer, half to even. Magnitudes above
/// [`MAX_TERM`] become it; infinities and NaN give 0.
pub fn fixed64(x: f32, weight: u32, fraction_bits: u32) -> i64 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) & 0xff;
    // Subnormal numbers are too small to count for any weight and number of bits.
    if exponent == 0 || exponent == 0xff {
        return 0;
    }
    let product = u64::from((bits & 0x7f_ffff) | 0x80_0000) * u64::from(weight);
    // x · weight · 2^fraction_bits = product · 2^up / 2^down
    let up = (exponent + fraction_bits).saturating_sub(150);
    let down = 150u32.saturating_sub(exponent + fraction_bits);
    let magnitude = if product == 0 || down > 56 {
        0
    } else if up > 0 {
        let room = product.leading_zeros();
        if up < room { (product << up).min(MAX_TERM) } else { MAX_TERM }
    } else {
        let quotient = product >> down;
        let twice_rest = 2 * (product - (quotient << down));
        let one = 1u64 << down;
        let tie_to_odd = twice_rest == one && quotient % 2 == 1;
        quotient + u64::from(twice_rest > one || tie_to_odd)
    };
    let value = magnitude as i64;
    if bits >> 31 == 1 { -value } else { value }
}

/// total / (weight · 2^fraction_bits), correctly rounded to `f32` (half to even). `weight` is
/// below 2^63; a weight of 0 gives 0.
pub fn mean(total: i64, weight: u64, fraction_bits: u32) -> f32 {
    if total == 0 || weight == 0 {
        return 0.0;
    }
    // The highest bit at 127: at least 65 bits of quotient, the last of which also says
    // whether anything is left, so that the conversion rounds as the exact number would.
    let magnitude = u128::from(total.unsigned_abs());
    let shift = magnitude.leading_zeros();
    let dividend = magnitude << shift;
    let rest = dividend % u128::from(weight) != 0;
    let quotient = (dividend / u128::from(weight)) | u128::from(rest);
    // A power of two in the normal range of f64, and a result in that of f32: no rounding.
    let power = f64::powi(2.0, -((shift + fraction_bits) as i32));
    let value = (f64::from(quotient as f32) * power) as f32;
    if total < 0 { -value } else { value }
}

/// A word as a signed number to the nearest `f32`, half to even: words of more than half the
/// modulus are negative. `modulus_mask` is the modulus, a power of two, less one.
pub fn signed_word(word: u32, modulus_mask: u32) -> f32 {
    // Up to the sign bit and back.
    let unused = modulus_mask.leading_zeros();
    ((word.wrapping_shl(unused) as i32).wrapping_shr(unused)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_go_to_even_and_the_rest_to_the_nearest() {
        for (x, expected) in
            [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-2.5, -2), (-3.5, -4), (0.75, 1)]
        {
            assert_eq!(fixed64(x, 1, 0), expected, "{x}");
            // The same number in other units.
            assert_eq!(fixed64(x / 1024.0, 1, 10), expected, "{x}");
        }
        assert_eq!(fixed64(0.25, 3, 1), 2);
        assert_eq!(fixed64(0.25, 5, 1), 2);
    }

    #[test]
    fn the_extremes_saturate_or_vanish() {
        let most = MAX_TERM as i64;
        assert_eq!(fixed64(f32::MAX, u32::MAX, 62), most);
        assert_eq!(fixed64(-1e30, 1, 0), -most);
        assert_eq!(fixed64(1.0, 1, 62), most);
        assert_eq!(fixed64(-1.0, 1, 61), -(1 << 61));
        assert_eq!(fixed64(f32::MAX, 0, 62), 0);
        for x in [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, f32::MIN_POSITIVE] {
            assert_eq!(fixed64(x, u32::MAX, 30), 0, "{x}");
        }
    }

    #[test]
    fn signed_words_wrap_at_half_the_modulus() {
        assert_eq!(signed_word(u32::MAX, u32::MAX), -1.0);
        assert_eq!(signed_word(1 << 31, u32::MAX), -2_147_483_648.0);
        assert_eq!(signed_word(i32::MAX as u32, u32::MAX), i32::MAX as f32);
        assert_eq!(signed_word(0xff, 0xff), -1.0);
        assert_eq!(signed_word(0x17f, 0xff), 127.0);
    }

    proptest! {
        // Weights up to 2^28 keep the product within the 53 bits of f64: the reference is exact.
        #[test]
        fn equals_exact_arithmetic_in_f64(x in -1e6f32..1e6, weight in 0u32..1 << 28, f in 0u32..14) {
            let product = f64::from(x) * f64::from(weight) * f64::powi(2.0, f as i32);
            prop_assert_eq!(fixed64(x, weight, f), product.round_ties_even() as i64);
        }

        #[test]
        fn any_bits_and_any_weight(bits: u32, weight: u32, f in 0..=MAX_FRACTION_BITS) {
            let x = f32::from_bits(bits);
            prop_assert_eq!(fixed64(-x, weight, f), -fixed64(x, weight, f));
            if x.is_finite() {
                let expected = f64::from(x) * f64::from(weight) * f64::powi(2.0, f as i32);
                let expected = expected.clamp(-(MAX_TERM as f64), MAX_TERM as f64);
                let error = (fixed64(x, weight, f) as f64 - expected).abs();
                prop_assert!(error <= 0.5 + expected.abs() * f64::EPSILON * 4.0);
            }
        }

        #[test]
        fn means_are_correctly_rounded(total: i64, weight in 1u64..1 << 63, f in 0..=MAX_FRACTION_BITS) {
            let ours = mean(total, weight, f);
            // No neighbor is closer to the exact quotient: |m · weight · 2^f - total| compared
            // in f64 with slack for its own rounding.
            let exact = total as f64 / weight as f64 / f64::powi(2.0, f as i32);
            let half_step = f64::from(ours.abs().next_up()) - f64::from(ours.abs());
            prop_assert!((f64::from(ours) - exact).abs() <= half_step * 0.500_001);
        }

        #[test]
        fn small_totals_come_back(x in -(1i64 << 24)..1 << 24, weight in 1u32.., f in 0u32..40) {
            let value = (x as f64 / f64::powi(2.0, f as i32)) as f32;
            prop_assert_eq!(mean(fixed64(value, weight, f), weight.into(), f), value);
        }
    }
}
