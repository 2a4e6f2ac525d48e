//! The counter-based random stream, the same on every device.
//!
//! `pcg4d` hashes four words into four (Jarzynski and Olano, "Hash Functions for GPU
//! Rendering", JCGT 2020). Good for dropout, stochastic rounding and shuffles; never for masks.
//!
//! ```rust
//! use tern_shaders::kernels::random::{pcg4d, uniform};
//!
//! // The same key gives the same words, any other key others.
//! assert_eq!(pcg4d([1, 2, 3, 4]), pcg4d([1, 2, 3, 4]));
//! assert_ne!(pcg4d([1, 2, 3, 4]), pcg4d([1, 2, 3, 5]));
//! assert_eq!(uniform(1 << 31), 0.5);
//! let mean = (0..10_000).map(|i| uniform(pcg4d([i, 0, 0, 0])[0])).sum::<f32>() / 10_000.0;
//! assert!((mean - 0.5).abs() < 0.02);
//! ```

/// Hashes a key into four uniform words.
pub fn pcg4d(key: [u32; 4]) -> [u32; 4] {
    let [mut x, mut y, mut z, mut w] =
        key.map(|k| k.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    x = x.wrapping_add(y.wrapping_mul(w));
    y = y.wrapping_add(z.wrapping_mul(x));
    z = z.wrapping_add(x.wrapping_mul(y));
    w = w.wrapping_add(y.wrapping_mul(z));
    [x, y, z, w] = [x ^ (x >> 16), y ^ (y >> 16), z ^ (z >> 16), w ^ (w >> 16)];
    x = x.wrapping_add(y.wrapping_mul(w));
    y = y.wrapping_add(z.wrapping_mul(x));
    z = z.wrapping_add(x.wrapping_mul(y));
    w = w.wrapping_add(y.wrapping_mul(z));
    [x, y, z, w]
}

/// A number in [0, 1) from the upper 24 bits, exact in `f32`.
pub fn uniform(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_uniform_and_its_words_differ() {
        let n = 10_000;
        let mut sums = [0.0f64; 4];
        for i in 0..n {
            let words = pcg4d([i, 7, 3, 1]);
            for (sum, word) in sums.iter_mut().zip(words) {
                let u = uniform(word);
                assert!((0.0..1.0).contains(&u));
                *sum += f64::from(u);
            }
        }
        for sum in sums {
            // Five standard deviations of a mean of uniform numbers.
            assert!((sum / f64::from(n) - 0.5).abs() < 5.0 * 0.2887 / 100.0);
        }
        assert_ne!(pcg4d([0, 0, 0, 0]), pcg4d([1, 0, 0, 0]));
    }
}
