//! Updates that are too long are scaled down. How long one is, is computed one way: every server,
//! every check of a run afterwards and every simulation has the same bits.

use std::io::Read;

use super::Format;
use crate::Result;

/// Adds the squares of `values` to `sum`, one after another.
fn add_squares(sum: f64, values: &[f32]) -> f64 {
    values.iter().fold(sum, |sum, x| sum + f64::from(*x) * f64::from(*x))
}

/// What vectors of this sum of squares are multiplied by for a norm of at most `most`.
fn factor(squares: f64, most: f64) -> f32 {
    let norm = squares.sqrt();
    if norm > most { (most / norm) as f32 } else { 1.0 }
}

/// Scales a vector down to a Euclidean norm of `most`, if its own is larger; whether it was.
pub fn limit(values: &mut [f32], most: f64) -> bool {
    let factor = factor(add_squares(0.0, values), most);
    scale(values, factor);
    factor < 1.0
}

/// Multiplies by what [`Format::factor`] gives.
fn scale(values: &mut [f32], factor: f32) {
    if factor < 1.0 {
        values.iter_mut().for_each(|x| *x *= factor);
    }
}

impl Format {
    /// Whether updates may have a largest norm alone.
    pub fn is_limited(&self) -> bool {
        self.max_norm.is_some()
    }

    /// What the values of a body are multiplied by for the largest norm that updates may have: 1
    /// for one that is within, or where there is no such limit.
    ///
    /// # Errors
    /// As [`Format::check`].
    pub fn factor(&self, source: impl Read) -> Result<f32> {
        let Some(most) = self.max_norm else { return Ok(1.0) };
        let mut squares = 0.0;
        self.values(source, |_, part| squares = add_squares(squares, part))?;
        Ok(factor(squares, most))
    }

    /// Reads a body as [`Format::values`] does, and scales it down by a factor.
    ///
    /// # Errors
    /// As [`Format::check`].
    pub fn scaled(
        &self,
        source: impl Read,
        factor: f32,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.values(source, |at, part| {
            scale(part, factor);
            each(at, part);
        })
    }
}
