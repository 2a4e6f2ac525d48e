//! Embedding tables: lookup and its gradient.
//!
//! ```rust
//! use tern_engine::{Arena, Data, Device, Element, Flat, Graph, Init, Parameters};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let mut parameters = Parameters::new();
//! let table = parameters.add("table", &[3, 2], Init::Zeros)?;
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut values = arena.read(Flat::Parameters, 0)?;
//! values[..6].copy_from_slice(&[0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
//! arena.write(Flat::Parameters, 0, &values)?;
//! let mut graph = Graph::new(&arena);
//! let tokens = graph.input("tokens", &[2], Element::U32);
//! let rows = graph.embedding(tokens, &table)?;
//! graph.keep(rows);
//! let mut plan = graph.forward()?;
//! // A token, and padding.
//! plan.write(tokens, &Data::U32(vec![2, u32::MAX]))?;
//! plan.run(1)?;
//! assert_eq!(plan.read(rows)?, Data::F32(vec![2.0, 2.5, 0.0, 0.0]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::kernels::embedding::{
    GATHER, Gather, LINKS, Links, MAX_POSITIONS, SCATTER_ADD, ScatterAdd,
};
use tern_shaders::kernels::pointwise::{SCALE, Scale};
use tern_shaders::{Element, kernels};

use super::{Case, codes, mode_of_part, noise, parts};
use crate::{Backward, Data, Error, Flat, Graph, Operand, Param, Result, Tensor};

impl Graph {
    /// y\[..., :\] = table\[token\[...\], :\] for tokens of any shape and a table
    /// `[vocabulary, width]`. The token `u32::MAX` is padding: it gives zeros and receives
    /// no gradient. Any other past the vocabulary is refused where it comes from outside: a data
    /// set's here, an input's by [`Plan::write`](crate::Plan::write).
    ///
    /// # Errors
    /// [`Error::Shape`] if the tokens are no words or the table is no matrix; [`Error::Value`] for
    /// a data set with a larger vocabulary.
    pub fn embedding(&mut self, token: Tensor, table: &Param) -> Result<Tensor> {
        self.check_words("embedding", token)?;
        let [vocabulary, width] = table.shape[..] else {
            let what = format!("{} {:?}, expected [vocabulary, width]", table.name, table.shape);
            return Err(Error::shape("embedding", what));
        };
        self.limit_words(token, vocabulary, "tokens of the vocabulary")?;
        let (vocabulary, width) = (vocabulary as u32, width as u32);
        let n = self.len(token) as u32;
        let (table_offset, table_stride) = (table.offset as u32, self.parameter_stride() as u32);
        let shape = [self.shape(token), &[width as usize]].concat();
        let y = self.tensor("embedding", &shape, Element::F32);
        let params = Gather { n, width, vocabulary, table_offset, table_stride };
        let parameters = Operand::Flat(Flat::Parameters);
        self.dispatch(&GATHER, &params, &[parameters, token.into(), y.into()]);
        let weight = table.clone();
        self.on_backward(&[], &[table], &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            let Some(accumulate) = b.weight_target(&weight) else { return Ok(()) };
            b.add_rows(dy, token, &params, (Backward::GRADIENTS, accumulate));
            Ok(())
        });
        Ok(y)
    }

    /// Rows of `dy` added to those of a table that words name, where [`GATHER`] took them from;
    /// outside of differentiation.
    fn add_rows(
        &mut self,
        dy: Tensor,
        token: Tensor,
        &Gather { n: positions, width, vocabulary, table_offset, table_stride }: &Gather,
        (table, accumulate): (Operand, u32),
    ) {
        for (first, end) in parts(positions, MAX_POSITIONS) {
            let n = end - first;
            let link = self.tensor("links", &[(vocabulary + n) as usize], Element::U32);
            let links = Links { n, first, positions, vocabulary };
            self.dispatch(&LINKS, &links, &[token.into(), link.into()]);
            let params = ScatterAdd {
                n,
                first,
                positions,
                width,
                vocabulary,
                table_offset,
                table_stride,
                accumulate: mode_of_part(first, accumulate),
            };
            self.dispatch(&SCATTER_ADD, &params, &[link.into(), dy.into(), table]);
        }
    }

    /// How [`GATHER`] takes `n` rows of a tensor.
    fn rows_of(&self, rows: usize, width: usize, n: usize) -> Gather {
        let [n, width, vocabulary] = [n, width, rows].map(|size| size as u32);
        Gather { n, width, vocabulary, table_offset: 0, table_stride: vocabulary * width }
    }

    /// y\[..., :\] = x\[index\[...\], :\]: those of the first axis of x that words name, in their
    /// order (`torch.index_select` of axis 0). The word `u32::MAX` gives zeros. Any other past the axis
    /// is refused where it comes from outside.
    ///
    /// # Errors
    /// [`Error::Shape`] if the index holds no words or x has no axis; [`Error::Value`] for words of a
    /// data set that are past it.
    pub fn index_select(&mut self, x: Tensor, index: Tensor) -> Result<Tensor> {
        self.check_floats("index_select", x)?;
        self.check_words("index_select", index)?;
        let Some((&rows, inner)) = self.shape(x).split_first() else {
            return Err(Error::shape("index_select", "[] has no first axis"));
        };
        let (width, shape) = (inner.iter().product(), [self.shape(index), inner].concat());
        self.limit_words(index, rows, "of the first axis")?;
        let params = self.rows_of(rows, width, self.len(index));
        let y = self.tensor("index_select", &shape, Element::F32);
        self.dispatch(&GATHER, &params, &[x.into(), index.into(), y.into()]);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                b.add_rows(dy, index, &params, (dx.into(), accumulate));
            }
            Ok(())
        });
        Ok(y)
    }

    /// y\[v, :\] = Σ x\[i, :\] over the i whose word is v, of `rows` rows (`torch.index_add` to zeros):
    /// the other way around than [`Graph::index_select`]. Rows of the word `u32::MAX` are left out.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the shape of x begins with that of the index, whose words they are, or
    /// for no rows; [`Error::Value`] for words of a data set that are past them.
    pub fn scatter_add(&mut self, x: Tensor, index: Tensor, rows: usize) -> Result<Tensor> {
        self.check_floats("scatter_add", x)?;
        self.check_words("scatter_add", index)?;
        let Some(inner) = self.shape(x).strip_prefix(self.shape(index)).filter(|_| rows > 0) else {
            let (x, index) = (self.shape(x), self.shape(index));
            return Err(Error::shape("scatter_add", format!("{x:?} by {index:?} to {rows} rows")));
        };
        let (width, shape) = (inner.iter().product::<usize>(), [&[rows], inner].concat());
        if rows.checked_mul(width).is_none_or(|n| u32::try_from(n).is_err()) {
            return Err(Error::shape("scatter_add", format!("{shape:?}: 1 to 2^32 - 1 elements")));
        }
        self.limit_words(index, rows, "rows")?;
        let params = self.rows_of(rows, width, self.len(index));
        let y = self.tensor("scatter_add", &shape, Element::F32);
        self.add_rows(x, index, &params, (y.into(), 0));
        self.on_backward(&[x], &[], &[y], move |b| {
            let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) else {
                return Ok(());
            };
            let args = |to: Tensor| [dy.into(), index.into(), to.into()];
            if accumulate == 0 {
                b.dispatch(&GATHER, &params, &args(dx));
                return Ok(());
            }
            let n = b.len(dx);
            let rows = b.tensor("rows", &[n], Element::F32);
            b.dispatch(&GATHER, &params, &args(rows));
            let params = Scale { n: n as u32, factor: 1.0, accumulate };
            b.dispatch(&SCALE, &params, &[rows.into(), dx.into()]);
            Ok(())
        });
        Ok(y)
    }
}

/// The lists of a buffer of tokens, for the cases of the gradient.
fn links_of(p: &Links, replicas: usize, token: &Data) -> Data {
    let words = (p.n + p.vocabulary) as usize * replicas;
    let mut link = vec![0; words];
    if let Data::U32(token) = token {
        kernels::embedding::links(p, replicas, token, &mut link);
    }
    Data::U32(link)
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, width, vocabulary, replicas) in
        [(1u32, 1u32, 1u32, 1usize), (7, 3, 5, 3), (320, 33, 10_000, 1), (800, 8, 90, 2)]
    {
        let size = format!("{n} of {vocabulary} x {width}");
        let (table_offset, table_stride) = (64, 64 + vocabulary * width + 5);
        // Some past the vocabulary, some padding.
        let token = codes(n as usize * replicas, vocabulary + 1, n);
        let flat = noise(table_stride as usize * replicas, 1.0, 1);
        let rows = noise((n * width) as usize * replicas, 2.0, 2);
        let params = Gather { n, width, vocabulary, table_offset, table_stride };
        let buffers = vec![flat.clone(), token.clone(), rows.clone()];
        cases.push(Case::new(&GATHER, &size, &params, replicas, buffers));
        let links = Links { n, first: 0, positions: n, vocabulary };
        let link = links_of(&links, replicas, &token);
        let blank = Data::U32(vec![7; link.len()]);
        cases.push(Case::new(&LINKS, &size, &links, replicas, vec![token, blank]));
        for accumulate in [0, 1] {
            let params = ScatterAdd {
                n,
                first: 0,
                positions: n,
                width,
                vocabulary,
                table_offset,
                table_stride,
                accumulate,
            };
            let label = format!("{size} accumulate {accumulate}");
            let buffers = vec![link.clone(), rows.clone(), flat.clone()];
            cases.push(Case::new(&SCATTER_ADD, label, &params, replicas, buffers));
        }
    }
    // As many positions as one invocation may visit, the searched token at the very end.
    let n = MAX_POSITIONS;
    let mut token = vec![0; n as usize];
    token[n as usize - 1] = 1;
    let (token, links) = (Data::U32(token), Links { n, first: 0, positions: n, vocabulary: 2 });
    let link = links_of(&links, 1, &token);
    let blank = Data::U32(vec![7; link.len()]);
    cases.push(Case::new(&LINKS, "most positions", &links, 1, vec![token, blank]));
    let params = ScatterAdd {
        n,
        positions: n,
        width: 1,
        vocabulary: 2,
        table_stride: 2,
        ..ScatterAdd::default()
    };
    // Whole numbers, whose sum is exact: a position left out shows.
    let ones = Data::F32(vec![1.0; n as usize]);
    let buffers = vec![link, ones, noise(2, 1.0, 3)];
    cases.push(Case::new(&SCATTER_ADD, "most positions", &params, 1, buffers));
    // A part in the middle of each replica's positions.
    let (n, first, positions, vocabulary, width, replicas) = (50, 13, 80, 7, 5, 2usize);
    let token = codes(positions as usize * replicas, vocabulary, 9);
    let links = Links { n, first, positions, vocabulary };
    let link = links_of(&links, replicas, &token);
    let blank = Data::U32(vec![7; link.len()]);
    cases.push(Case::new(&LINKS, "a part", &links, replicas, vec![token, blank]));
    let table_stride = vocabulary * width;
    let params = ScatterAdd {
        n,
        first,
        positions,
        width,
        vocabulary,
        table_offset: 0,
        table_stride,
        accumulate: 1,
    };
    let rows = noise((positions * width) as usize * replicas, 2.0, 2);
    let buffers = vec![link, rows, noise(table_stride as usize * replicas, 1.0, 3)];
    cases.push(Case::new(&SCATTER_ADD, "a part", &params, replicas, buffers));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{constant_words, gradient_check_with, run_cases, software};
    use crate::{Activation, Arena, Device, Init, Parameters, Trainable};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    #[test]
    fn gradients_match_finite_differences() {
        let mut parameters = Parameters::new();
        let other = parameters.add("other", &[3], Init::Normal(1.0)).unwrap();
        let table = parameters.add("table", &[5, 3], Init::Normal(1.0)).unwrap();
        gradient_check_with(&parameters, &[], |g, _| {
            let Data::U32(tokens) = codes(64, 6, 4) else { unreachable!() };
            let token = constant_words(g, tokens);
            let row = g.embedding(token, &table)?;
            // Used twice, so that the second use adds.
            let again = g.embedding(token, &table)?;
            let row = g.activation(row, Activation::Tanh);
            g.multiply(row, again)
        });
        assert_eq!(other.offset, 0, "the table does not start the flat vector");
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let mut parameters = Parameters::new();
        let vector = parameters.add("vector", &[5], Init::Zeros).unwrap();
        let table = parameters.add("table", &[5, 3], Init::Zeros).unwrap();
        let mut graph = Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap());
        let token = graph.input("token", &[4], Element::U32);
        let floats = graph.input("floats", &[4], Element::F32);
        let message = graph.embedding(token, &vector).unwrap_err().to_string();
        assert_eq!(message, "embedding: vector [5], expected [vocabulary, width]");
        let message = graph.embedding(floats, &table).unwrap_err().to_string();
        assert_eq!(message, "embedding: [4] holds F32, expected U32");
    }

    #[test]
    fn more_positions_than_a_dispatch_takes_are_summed_in_parts() {
        let mut parameters = Parameters::new();
        let table = parameters.add("table", &[3, 1], Init::Zeros).unwrap();
        let n = 2 * MAX_POSITIONS as usize + 7;
        let token: Vec<u32> = (0..n as u32).map(|i| u32::from(i % 5 == 0)).collect();
        let of_one = n.div_ceil(5) as f32;
        for (name, device) in software().iter().chain([&("cpu", Device::cpu())]) {
            let arena = Arena::new(device, &parameters, &[1]).unwrap();
            let mut graph = Graph::new(&arena);
            let input = graph.input("token", &[n], Element::U32);
            let y = graph.embedding(input, &table).unwrap();
            let seed = graph.input("dy", &[n, 1], Element::F32);
            let (mut plan, _) = graph.gradients(&[(y, seed)], &Trainable::All, &[]).unwrap();
            plan.write(input, &Data::U32(token.clone())).unwrap();
            plan.write(seed, &Data::F32(vec![1.0; n])).unwrap();
            plan.run(1).unwrap();
            let gradients = arena.read(Flat::Gradients, 0).unwrap();
            assert_eq!(gradients[..3], [n as f32 - of_one, of_one, 0.0], "{name}");
        }
    }
}
