//! Tokens drawn by their logits.

use tern_shaders::kernels::random::{pcg4d, uniform};

/// Draws tokens: the same ones for the same seed and logits.
///
/// ```
/// use tern_engine::nn::Sampler;
///
/// let logits = [0.0, 3.0, -1.0, 2.0];
/// // The likeliest alone, and those of the two likeliest.
/// assert_eq!(Sampler::new(1).top_k(1).draw(&logits), 1);
/// let mut sampler = Sampler::new(1).top_k(2).temperature(2.0);
/// let drawn: Vec<u32> = (0..100).map(|_| sampler.draw(&logits)).collect();
/// assert!(drawn.contains(&1) && drawn.contains(&3) && drawn.iter().all(|token| token % 2 == 1));
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    seed: u32,
    drawn: u32,
    temperature: f32,
    most: usize,
}

impl Sampler {
    /// All tokens by their probabilities.
    pub fn new(seed: u32) -> Self {
        Sampler { seed, drawn: 0, temperature: 1.0, most: usize::MAX }
    }

    /// With logits divided by a temperature: near 0 the likeliest is drawn nearly always.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature.max(f32::MIN_POSITIVE);
        self
    }

    /// Of so many of the likeliest tokens, at least one.
    pub fn top_k(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self
    }

    /// A token; 0 without logits. Logits that are not a number come last.
    pub fn draw(&mut self, logits: &[f32]) -> u32 {
        let order = |x: f32| if x.is_nan() { f32::NEG_INFINITY } else { x };
        let mut best: Vec<(u32, f32)> = (0..).zip(logits.iter().map(|x| order(*x))).collect();
        if self.most < best.len() {
            // The first of equal ones, whatever the order of the rest.
            best.select_nth_unstable_by(self.most, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            best.truncate(self.most);
        }
        best.sort_unstable_by_key(|(token, _)| *token);
        let top = best.iter().map(|(_, logit)| *logit).fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| f64::from((logit - top) / self.temperature).exp();
        self.drawn = self.drawn.wrapping_add(1);
        let random = f64::from(uniform(pcg4d([self.drawn, self.seed, 0x5a3, 1])[0]));
        let mut left = random * best.iter().map(|(_, logit)| weight(*logit)).sum::<f64>();
        let drawn = best.iter().find(|(_, logit)| {
            left -= weight(*logit);
            left < 0.0
        });
        drawn.or(best.last()).map_or(0, |(token, _)| *token)
    }
}
