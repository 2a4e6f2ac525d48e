//! Row, column and full reductions.

use tern_shaders::Element;
use tern_shaders::cpu::reduce::{
    COLUMNS, Columns, ROWS, ROWS_BACKWARD, Reduction, Rows, RowsBackward, SUM, Sum,
};

use super::Case;
use crate::{Error, Graph, Operand, Result, Tensor};

/// Elements that one part of a long sum holds.
const PART: usize = 4096;

/// Rows that one part of a column sum holds.
const PART_ROWS: usize = 1024;

/// Records out[n] (+)= Σ_m x[m, n] for a dense `x` of `[rows, columns]`; `out` is an operand,
/// the first word and the words from replica to replica.
pub(crate) fn sum_columns(
    graph: &mut Graph,
    x: Tensor,
    [rows, columns]: [usize; 2],
    out: (Operand, usize, usize),
    accumulate: u32,
) {
    let (operand, offset, stride) = out;
    let mut params = Columns {
        rows: rows as u32,
        columns: columns as u32,
        parts: 1,
        out_offset: offset as u32,
        out_stride: stride as u32,
        accumulate,
    };
    if rows < 2 * PART_ROWS {
        graph.dispatch(&COLUMNS, &params, &[x.into(), operand]);
        return;
    }
    let parts = rows.div_ceil(PART_ROWS);
    let partial = graph.tensor("parts of sums", &[parts, columns], Element::F32);
    params = Columns {
        parts: parts as u32,
        out_offset: 0,
        out_stride: (parts * columns) as u32,
        accumulate: 0,
        ..params
    };
    graph.dispatch(&COLUMNS, &params, &[x.into(), partial.into()]);
    sum_columns(graph, partial, [parts, columns], out, accumulate);
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    Vec::new()
}
