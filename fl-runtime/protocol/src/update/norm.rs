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
    /// Reads a body as [`Format::values`] does, scaled down to the largest norm that updates may
    /// have. `open` gives the body from its start: where norms have a limit it is read twice.
    /// Whether it was scaled.
    ///
    /// # Errors
    /// As [`Format::check`], and what `open` says.
    pub fn limited<R: Read>(
        &self,
        open: impl Fn() -> Result<R>,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<bool> {
        let factor = match self.max_norm {
            Some(most) => {
                let mut squares = 0.0;
                self.values(open()?, |_, part| squares = add_squares(squares, part))?;
                factor(squares, most)
            }
            None => 1.0,
        };
        self.values(open()?, |at, part| {
            scale(part, factor);
            each(at, part);
        })?;
        Ok(factor < 1.0)
    }
}
