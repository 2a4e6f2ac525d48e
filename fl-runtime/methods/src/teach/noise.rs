//! Noise on counts: whole numbers drawn without floating point, so that no low bits tell what
//! was added (Mironov 2012 shows how they do), from a cryptographic generator.
//!
//! The algorithms are those of Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for
//! Differential Privacy": Algorithms 1 (Bernoulli of an exponential), 2 (Laplace) and 3 (Gauss).
//! Discrete Gaussian noise costs as much as continuous noise of its σ (Theorem 14 there), and
//! discrete Laplace noise as continuous noise of its scale.

use tern_secagg::Random;
use zeroize::Zeroizing;

use tern_protocol::{Error, Result};

/// Scales are multiples of one part in this many.
const GRID: u64 = 64;

/// Largest scale; squares of what is drawn with it fit 128 bits.
const MOST: f64 = 4096.0;

/// Where noise comes from.
pub struct Noise(Source);

enum Source {
    /// A new key from the system for each stream.
    System,
    /// Keys counted up from a seed.
    Seeded { seed: u64, streams: u64 },
}

impl Noise {
    /// The system's generator: what private answers need.
    pub fn from_system() -> Self {
        Noise(Source::System)
    }

    /// The same noise for the same seed, for experiments and tests. Who knows the seed can take
    /// the noise off: answers that leave the house are not private with it.
    pub fn seeded(seed: u64) -> Self {
        Noise(Source::Seeded { seed, streams: 0 })
    }

    /// A stream that serves for one answer.
    pub(super) fn stream(&mut self) -> Result<Stream> {
        let mut key = Zeroizing::new([0; 32]);
        match &mut self.0 {
            Source::System => getrandom::fill(&mut key[..])?,
            Source::Seeded { seed, streams } => {
                key[..8].copy_from_slice(&seed.to_le_bytes());
                key[8..16].copy_from_slice(&streams.to_le_bytes());
                *streams += 1;
            }
        }
        Ok(Stream(Random::new(&key)))
    }
}

/// A scale in parts of [`GRID`]. One between two parts is refused: what is drawn must be what is
/// accounted for.
pub(super) fn on_grid(name: &str, scale: f64) -> Result<u64> {
    let parts = scale * GRID as f64;
    if !(1.0..=MOST).contains(&scale) || parts.fract() != 0.0 {
        return Err(Error::value(name, scale, format!("1 to {MOST} in steps of 1/{GRID}")));
    }
    Ok(parts as u64)
}

/// Random numbers.
pub(super) struct Stream(Random);

impl Stream {
    /// Uniform below `bound`, which isn't zero.
    pub fn below(&mut self, bound: u128) -> u128 {
        let mask = u128::MAX.checked_shr(bound.leading_zeros()).unwrap_or(0);
        loop {
            let wide = u128::from(self.0.long()) | u128::from(self.0.long()) << 64;
            if wide & mask < bound {
                return wide & mask;
            }
        }
    }

    /// True with probability exp(−a/b) for a ≤ b.
    fn exp_small(&mut self, a: u128, b: u128) -> bool {
        let mut k = 1;
        while self.below(b * k) < a {
            k += 1;
        }
        k % 2 == 1
    }

    /// True with probability exp(−a/b).
    fn exp(&mut self, a: u128, b: u128) -> bool {
        (0..a / b).all(|_| self.exp_small(1, 1)) && self.exp_small(a % b, b)
    }

    /// P(y) ∝ exp(−|y|·s/t).
    fn laplace_of(&mut self, t: u128, s: u128) -> i128 {
        loop {
            let rest = self.below(t);
            if !self.exp(rest, t) {
                continue;
            }
            let mut whole = 0;
            while self.exp_small(1, 1) {
                whole += 1;
            }
            let size = ((rest + t * whole) / s) as i128;
            match self.below(2) {
                0 => return size,
                _ if size > 0 => return -size,
                // Zero has one sign.
                _ => {}
            }
        }
    }

    /// Laplace noise of a scale in parts of [`GRID`]: P(y) ∝ exp(−|y|/scale).
    pub fn laplace(&mut self, scale: u64) -> i64 {
        self.laplace_of(scale.into(), GRID.into()) as i64
    }

    /// Gaussian noise of a σ in parts of [`GRID`]: P(y) ∝ exp(−y²/(2σ²)).
    pub fn gaussian(&mut self, sigma: u64) -> i64 {
        let squares = u128::from(GRID * GRID);
        let variance = u128::from(sigma).pow(2);
        let t = u128::from(sigma / GRID + 1);
        loop {
            let y = self.laplace_of(t, 1);
            // (|y| − σ²/t)² / (2σ²) as a fraction.
            let off = (squares * y.unsigned_abs() * t).abs_diff(variance);
            if self.exp(off * off, 2 * squares * variance * t * t) {
                return y as i64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of draws by value, from −`most` to `most`.
    fn histogram(most: i64, draws: usize, mut draw: impl FnMut() -> i64) -> Vec<f64> {
        let mut counts = vec![0.0; 2 * most as usize + 1];
        for _ in 0..draws {
            let at = draw() + most;
            if let Some(count) = counts.get_mut(at as usize) {
                *count += 1.0;
            }
        }
        counts
    }

    /// Each value as often as its weight says, within five deviations.
    fn follows(counts: &[f64], draws: usize, weight: impl Fn(f64) -> f64) {
        let most = (counts.len() / 2) as i64;
        let total: f64 = (-2000..=2000).map(|y| weight(f64::from(y))).sum();
        for (y, count) in (-most..=most).zip(counts) {
            let p = weight(y as f64) / total;
            let expected = p * draws as f64;
            let deviation = (expected * (1.0 - p)).sqrt();
            assert!((count - expected).abs() < 5.0 * deviation + 1.0, "{y}: {count} {expected}");
        }
    }

    #[test]
    fn draws_follow_their_distributions() {
        let mut stream = Noise::seeded(7).stream().unwrap();
        let draws = 40_000;
        for scale in [1.0, 2.75] {
            let parts = on_grid("scale", scale).unwrap();
            let laplace = histogram(6, draws, || stream.laplace(parts));
            follows(&laplace, draws, |y| (-y.abs() / scale).exp());
            let gaussian = histogram(6, draws, || stream.gaussian(parts));
            follows(&gaussian, draws, |y| (-y * y / (2.0 * scale * scale)).exp());
        }
        let wide = on_grid("scale", MOST).unwrap();
        let variance: f64 = (0..4000).map(|_| (stream.gaussian(wide) as f64).powi(2)).sum();
        let deviation = (variance / 4000.0).sqrt();
        assert!((deviation / MOST - 1.0).abs() < 0.06, "{deviation}");
    }

    #[test]
    fn scales_that_cannot_be_drawn_are_refused() {
        assert_eq!(on_grid("scale", 20.25).unwrap(), 20 * GRID + GRID / 4);
        for bad in [0.0, -1.0, 0.99, 20.001, 5000.0, f64::NAN, f64::INFINITY] {
            assert!(on_grid("scale", bad).unwrap_err().to_string().contains("1 to 4096"));
        }
    }

    #[test]
    fn only_seeded_noise_repeats() {
        let draw = |noise: &mut Noise| {
            let mut stream = noise.stream().unwrap();
            (0..8).map(|_| stream.gaussian(200 * GRID)).collect::<Vec<_>>()
        };
        assert_eq!(draw(&mut Noise::seeded(1)), draw(&mut Noise::seeded(1)));
        assert_ne!(draw(&mut Noise::seeded(1)), draw(&mut Noise::seeded(2)));
        let mut one = Noise::seeded(1);
        assert_ne!(draw(&mut one), draw(&mut one), "the next answer has noise of its own");
        assert_ne!(draw(&mut Noise::from_system()), draw(&mut Noise::from_system()));
    }
}
