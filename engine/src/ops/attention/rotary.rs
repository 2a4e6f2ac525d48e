//! Rotary position embeddings, and caches.

use tern_shaders::Element;
use tern_shaders::kernels::attention::{ROTATE, Rotate, STORE, Store, rotary_table};

use crate::{Data, Error, Graph, Result, Tensor};

impl Graph {
    /// Cosines and sines for [`Graph::rotary`]: `[positions, 2, size / 2]`, of position ·
    /// base^(−2 i / size).
    ///
    /// # Errors
    /// [`Error::Value`] unless `size` is even and `base` positive.
    pub fn rotary_table(&mut self, positions: usize, size: usize, base: f64) -> Result<Tensor> {
        if size == 0 || !size.is_multiple_of(2) {
            return Err(Error::value("size of a rotary embedding", size, "an even number"));
        }
        if !(base > 0.0 && base.is_finite()) {
            return Err(Error::value("base of a rotary embedding", base, "a positive number"));
        }
        let shape = [positions, 2, size / 2];
        if positions.checked_mul(size).is_none_or(|n| n > 1 << 28) {
            return Err(Error::shape("rotary_table", format!("{shape:?}: 2^28 numbers at most")));
        }
        self.values("rotary table", &shape, Data::F32(rotary_table(positions, size, base)))
    }

    /// Rotary position embedding (Su et al. 2021) of `x` `[T, B, H, D]` by the positions `[T, B]`
    /// of a table `[positions, 2, D / 2]`: turns each pair (i, i + D / 2) of a head by its
    /// position's angle. That is the convention of Llama's weights as Hugging Face has them; weights
    /// that pair neighbors (2 i, 2 i + 1) need their rows reordered.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the shapes go together; [`Error::Value`] for positions past the
    /// table.
    pub fn rotary(&mut self, x: Tensor, table: Tensor, positions: Tensor) -> Result<Tensor> {
        self.check_floats("rotary", x)?;
        self.check_floats("rotary", table)?;
        self.check_words("rotary", positions)?;
        let (&[steps, batch, heads, size], &[most, 2, pairs]) = (self.shape(x), self.shape(table))
        else {
            let what = format!(
                "x {:?}, table {:?}, expected [T, B, H, D] and [positions, 2, D / 2]",
                self.shape(x),
                self.shape(table)
            );
            return Err(Error::shape("rotary", what));
        };
        if size != 2 * pairs || self.shape(positions) != [steps, batch] {
            let what = format!(
                "x {:?} with a table for heads of {} and positions {:?}",
                self.shape(x),
                2 * pairs,
                self.shape(positions)
            );
            return Err(Error::shape("rotary", what));
        }
        self.limit_words(positions, most, "positions of the table")?;
        let shape = self.shape(x).to_vec();
        let y = self.tensor("rotary", &shape, Element::F32);
        let [rows, heads, pairs, most] = [steps * batch, heads, pairs, most].map(|n| n as u32);
        let params = move |inverse, accumulate| Rotate {
            rows,
            heads,
            pairs,
            positions: most,
            inverse,
            accumulate,
        };
        self.dispatch(&ROTATE, &params(0, 0), &[x, table, positions, y].map(Into::into));
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                let args = [dy, table, positions, dx].map(Into::into);
                b.dispatch(&ROTATE, &params(1, accumulate), &args);
            }
            Ok(())
        });
        Ok(y)
    }

    /// Overwrites rows of `cache` `[rows, ...]` by those of `x` `[n, ...]`, each at its place
    /// `[n]` (words); a place past the cache's rows leaves the row out. Outside of differentiation.
    /// The two may have their leading axes in any form: a row is as long as `x` has elements for a
    /// place.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` and `cache` consist of rows of that length.
    pub fn store_rows(&mut self, x: Tensor, place: Tensor, cache: Tensor) -> Result<()> {
        self.check_floats("store_rows", x)?;
        self.check_floats("store_rows", cache)?;
        self.check_words("store_rows", place)?;
        let n = self.len(place);
        let width = self.len(x) / n;
        let fits = width > 0 && self.len(x) == n * width && self.len(cache).is_multiple_of(width);
        if !fits || self.root(x) == self.root(cache) {
            let [x, place, cache] = [x, place, cache].map(|x| self.shape(x));
            let what = format!("{x:?} at {place:?} in {cache:?}, expected rows of one length");
            return Err(Error::shape("store_rows", what));
        }
        let rows = (self.len(cache) / width) as u32;
        let params = Store { n: n as u32, width: width as u32, rows };
        self.dispatch(&STORE, &params, &[x, place, cache].map(Into::into));
        Ok(())
    }

    /// The position of each token of texts `[T, B]` that begin together: words `[T, B]`, t in row t.
    ///
    /// # Errors
    /// As [`Graph::values`].
    pub fn positions(&mut self, steps: usize, batch: usize) -> Result<Tensor> {
        let words = (0..steps as u32).flat_map(|t| std::iter::repeat_n(t, batch)).collect();
        self.values("positions", &[steps, batch], Data::U32(words))
    }
}
