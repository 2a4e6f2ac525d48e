//! Embedding: whole rows instead of element by element.

use fearless_simd::Simd;
use tern_shaders::kernels::embedding::{Gather, PADDING, ScatterAdd};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::parallel::rows;
use super::vector::{MAX_LANES, assign, inlined, lanes};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("embedding/gather", gather), ("embedding/scatter_add", scatter_add)];

fn gather(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Gather = bytemuck::from_bytes(p);
    let [parameters, token, y] = args else { unreachable!("three bindings") };
    let (parameters, token) = (parameters.real(), token.word());
    let (n, width) = (p.n as usize, p.width as usize);
    rows(y.real_mut(), width, width, |first, y| {
        let row = |at: usize| {
            let table = at / n * p.table_stride as usize + p.table_offset as usize;
            match token[at] {
                PADDING => None,
                code => Some(table + code.min(p.vocabulary - 1) as usize * width),
            }
        };
        gather_rows(parameters, width, 0.0, |i| row(first + i), y);
    });
}

/// y\[i\] = the row that starts at place `row(i)` of a table, or a filler.
#[inline(always)]
pub(super) fn gather_rows(
    table: &[f32],
    width: usize,
    filler: f32,
    row: impl Fn(usize) -> Option<usize>,
    y: &mut [f32],
) {
    // Short rows by single elements; of a constant number, where there are few.
    let few = inlined(
        #[inline(always)]
        |width: usize, y: &mut [f32]| {
            for (i, y) in y.chunks_exact_mut(width).enumerate() {
                match row(i) {
                    None => y.fill(filler),
                    Some(from) => {
                        y.iter_mut().zip(&table[from..][..width]).for_each(|(y, x)| *y = *x);
                    }
                }
            }
        },
    );
    match width {
        1 => few(1, y),
        2 => few(2, y),
        3 => few(3, y),
        4 => few(4, y),
        _ if width < MAX_LANES => few(width, y),
        _ => {
            for (i, y) in y.chunks_exact_mut(width).enumerate() {
                match row(i) {
                    None => y.fill(filler),
                    // The C library's copy fetches ahead.
                    Some(from) => y.copy_from_slice(&table[from..][..width]),
                }
            }
        }
    }
}

fn scatter_add(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &ScatterAdd = bytemuck::from_bytes(p);
    let [link, dy, gradients] = args else { unreachable!("three bindings") };
    let (link, dy, gradients) = (link.word(), dy.real(), gradients.real_mut());
    let (n, width, vocabulary) = (p.n as usize, p.width as usize, p.vocabulary as usize);
    let work = width * (1 + n / vocabulary);
    for r in 0..replicas {
        let link = &link[r * (vocabulary + n)..][..vocabulary + n];
        let (heads, next) = link.split_at(vocabulary);
        let dy = &dy[(r * p.positions as usize + p.first as usize) * width..][..n * width];
        let first = r * p.table_stride as usize + p.table_offset as usize;
        rows(&mut gradients[first..][..vocabulary * width], width, work, |first, table| {
            if p.accumulate == 0 {
                table.fill(0.0);
            }
            let heads = &heads[first..];
            with_vectors!(s => add_lists(s, heads, next, dy, width, table));
        });
    }
}

/// Adds to each row the gradients at the places that its list has: a head a row, and after each
/// place the next one, until one that there isn't.
#[inline(always)]
fn add_lists<S: Simd>(
    s: S,
    heads: &[u32],
    next: &[u32],
    dy: &[f32],
    width: usize,
    table: &mut [f32],
) {
    let few = inlined(
        #[inline(always)]
        |width: usize, table: &mut [f32]| {
            for (head, row) in heads.iter().zip(table.chunks_exact_mut(width)) {
                let mut j = *head as usize;
                while j < next.len() {
                    let dy = &dy[j * width..][..width];
                    row.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
                    j = next[j] as usize;
                }
            }
        },
    );
    match width {
        1 => few(1, table),
        2 => few(2, table),
        3 => few(3, table),
        4 => few(4, table),
        _ if width < lanes::<S>() => few(width, table),
        _ => {
            for (head, row) in heads.iter().zip(table.chunks_exact_mut(width)) {
                let mut j = *head as usize;
                while j < next.len() {
                    assign(s, &dy[j * width..], true, row);
                    j = next[j] as usize;
                }
            }
        }
    }
}
