//! Embedding tables: lookup and its gradient.
//!
//! ```rust
//! use tern_shaders::kernels::embedding::{Gather, PADDING, gather};
//!
//! // A table of three rows of two numbers, which is all there is of parameters.
//! let table = [0.0f32, 0.5, 1.0, 1.5, 2.0, 2.5];
//! let p = Gather { n: 2, width: 2, vocabulary: 3, table_offset: 0, table_stride: 6 };
//! let mut y = [9.0; 4];
//! gather(&p, 1, &table, &[2, PADDING], &mut y);
//! assert_eq!(y, [2.0, 2.5, 0.0, 0.0]);
//! ```

use crate::{AnyKernel, Real, kernel, linear_grid, params};

/// The token of a padded position: it gives zeros and receives no gradient. Every other
/// token past the vocabulary counts as the last one.
pub const PADDING: u32 = u32::MAX;

/// Positions that [`LINKS`] and [`SCATTER_ADD`] take in one dispatch, so that no loop is too long
/// for any device. More take a dispatch a part.
pub const MAX_POSITIONS: u32 = 50_000;

params!(
    /// Parameters of [`GATHER`].
    Gather {
        /// Positions a replica.
        n: u32,
        /// Elements of an embedding.
        width: u32,
        /// Rows of the table.
        vocabulary: u32,
        /// Where the table starts in a replica's parameters, in words.
        table_offset: u32,
        /// Words of parameters a replica.
        table_stride: u32,
    }
);

params!(
    /// Parameters of [`LINKS`].
    Links {
        /// Positions of the part, at most [`MAX_POSITIONS`].
        n: u32,
        /// Its first position.
        first: u32,
        /// Positions a replica.
        positions: u32,
        /// Rows of the table.
        vocabulary: u32,
    }
);

params!(
    /// Parameters of [`SCATTER_ADD`].
    ScatterAdd {
        /// Positions of the part, at most [`MAX_POSITIONS`].
        n: u32,
        /// Its first position.
        first: u32,
        /// Positions a replica.
        positions: u32,
        /// Elements of an embedding.
        width: u32,
        /// Rows of the table.
        vocabulary: u32,
        /// Where the table's gradient starts in a replica's gradients, in words.
        table_offset: u32,
        /// Words of gradients a replica.
        table_stride: u32,
        /// 1 adds to the gradient, 0 overwrites it.
        accumulate: u32,
    }
);

/// y\[i, :\] = table\[token\[i\], :\]. Shapes: `parameters` `[R, table_stride]`, `token`
/// `[R, n]`, `y` `[R, n, width]`.
pub fn gather<F: Real>(p: &Gather, replicas: usize, parameters: &[F], token: &[u32], y: &mut [F]) {
    let (n, width) = (p.n as usize, p.width as usize);
    for r in 0..replicas {
        let table = r * p.table_stride as usize + p.table_offset as usize;
        for i in 0..n {
            let code = token[r * n + i];
            let row = table + code.min(p.vocabulary - 1) as usize * width;
            for d in 0..width {
                y[(r * n + i) * width + d] =
                    if code == PADDING { F::zero() } else { parameters[row + d] };
            }
        }
    }
}

/// Lists of the positions of a part that hold the same token, counted from the part's first:
/// `link[v]` the first position of token v, `link[vocabulary + i]` the next position with the
/// token of i, [`u32::MAX`] at the end. Shapes: `token` `[R, positions]`, `link`
/// `[R, vocabulary + n]`.
pub fn links(p: &Links, replicas: usize, token: &[u32], link: &mut [u32]) {
    let (n, vocabulary) = (p.n as usize, p.vocabulary as usize);
    for r in 0..replicas {
        let token = &token[r * p.positions as usize + p.first as usize..][..n];
        let link = &mut link[r * (vocabulary + n)..][..vocabulary + n];
        link.fill(u32::MAX);
        // From the last position to the first, each goes to the front of its list.
        for i in (0..n).rev() {
            let code = token[i];
            if code != PADDING {
                let head = code.min(p.vocabulary - 1) as usize;
                link[vocabulary + i] = link[head];
                link[head] = i as u32;
            }
        }
    }
}

/// dtable\[v, :\] (+)= Σ dy\[i, :\] over the part's positions i of token v, in rising order.
/// Shapes: `link` of [`links`], `dy` `[R, positions, width]`, `gradients` `[R, table_stride]`.
pub fn scatter_add<F: Real>(
    p: &ScatterAdd,
    replicas: usize,
    link: &[u32],
    dy: &[F],
    gradients: &mut [F],
) {
    let (n, width, vocabulary) = (p.n as usize, p.width as usize, p.vocabulary as usize);
    for r in 0..replicas {
        let link = &link[r * (vocabulary + n)..][..vocabulary + n];
        let dy = &dy[(r * p.positions as usize + p.first as usize) * width..][..n * width];
        for v in 0..vocabulary {
            for d in 0..width {
                let mut sum = F::zero();
                let mut j = link[v] as usize;
                while j < n {
                    sum += dy[j * width + d];
                    j = link[vocabulary + j] as usize;
                }
                let at = r * p.table_stride as usize + p.table_offset as usize + v * width + d;
                gradients[at] = if p.accumulate != 0 { gradients[at] + sum } else { sum };
            }
        }
    }
}

kernel! {
    /// Lookup: y\[i, :\] = table\[token\[i\], :\].
    GATHER = "embedding/gather", Gather;
    bindings: [parameters: read f32, token: read u32, y: write f32];
    reference: gather;
    variants: [{
        name: "plain",
        source: "embedding/gather.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize * p.width as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Linked lists of the positions of each token, so that the gradient takes
    /// vocabulary × width + n × width steps and no atomics. The lists take up to
    /// (vocabulary + n) × n comparisons of words.
    LINKS = "embedding/links", Links;
    bindings: [token: read u32, link: write u32];
    reference: links;
    variants: [{
        name: "plain",
        source: "embedding/links.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: |p, _| p.n.into(),
        grid: |p, v| linear_grid(p.n as usize + p.vocabulary as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Gradient of the table: each row sums the positions of its token, in rising order.
    SCATTER_ADD = "embedding/scatter_add", ScatterAdd;
    bindings: [link: read u32, dy: read f32, gradients: write f32];
    reference: scatter_add;
    variants: [{
        name: "plain",
        source: "embedding/scatter_add.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: |p, _| p.n.into(),
        grid: |p, v| linear_grid(p.vocabulary as usize * p.width as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[GATHER.any(), LINKS.any(), SCATTER_ADD.any()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_run_through_equal_tokens_in_rising_order() {
        let p = Links { n: 5, first: 0, positions: 5, vocabulary: 3 };
        let mut link = [7; 8];
        links(&p, 1, &[1, 0, 1, PADDING, 9], &mut link);
        let none = u32::MAX;
        assert_eq!(link, [1, 0, 4, 2, none, none, none, none]);
    }

    #[test]
    fn the_gradient_is_the_transpose_of_the_lookup() {
        // <gather(E), dy> = <E, scatter_add(dy)> for every E and dy: both are linear.
        let (n, width, vocabulary) = (6, 2, 4);
        let token = [3, 1, 3, PADDING, 0, 17];
        let table: Vec<f64> = (0..8).map(|i| f64::from(i) * 0.7 - 2.0).collect();
        let dy: Vec<f64> = (0..12).map(|i| f64::from(i * i) * 0.1 - 1.0).collect();
        let mut y = vec![9.0; 12];
        let g = Gather { n, width, vocabulary, table_offset: 0, table_stride: 8 };
        gather(&g, 1, &table, &token, &mut y);
        assert_eq!(y[6..8], [0.0, 0.0], "a padded position");
        assert_eq!(y[10..12], table[6..8], "a token past the vocabulary is the last one");
        let mut link = [0; 10];
        links(&Links { n, first: 0, positions: n, vocabulary }, 1, &token, &mut link);
        let mut dtable = vec![1.0; 8];
        let s = ScatterAdd {
            n,
            positions: n,
            width,
            vocabulary,
            table_stride: 8,
            ..ScatterAdd::default()
        };
        scatter_add(&s, 1, &link, &dy, &mut dtable);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert!((dot(&y, &dy) - dot(&table, &dtable)).abs() < 1e-12);
        assert_eq!(dtable[4..6], [0.0, 0.0], "a token that does not occur");
        let once = dtable.clone();
        scatter_add(&ScatterAdd { accumulate: 1, ..s }, 1, &link, &dy, &mut dtable);
        assert!(once.iter().zip(&dtable).all(|(a, b)| (2.0 * a - b).abs() < 1e-12));
    }
}
