//! Rows of what moves elements by strides, or chooses between them.

use tern_shaders::kernels::pointwise::{
    STRIDED_COPY, StridedCopy, WHERE_BACKWARD, WHERE_FORWARD, WhereBackward, WhereForward,
};

use super::Size;
use super::recipe::{Recipe, case, floats, words};

/// Rows of these kernels.
pub fn rows(size: Size) -> Vec<Recipe> {
    let side: u32 = size.pick(1 << 9, 1 << 11);
    let n = side * side;
    let all = |key| floats(n as usize, key);
    let dense = StridedCopy {
        size0: 1,
        size1: 1,
        size2: side,
        size3: side,
        x_stride2: side,
        x_stride3: 1,
        x_replica: n,
        y_stride2: side,
        y_stride3: 1,
        y_replica: n,
        ..StridedCopy::default()
    };
    let turned = StridedCopy { x_stride2: 1, x_stride3: side, ..dense };
    let repeated = StridedCopy { x_stride2: 0, ..dense };
    let mut cases = Vec::new();
    for (what, p) in [("copied", dense), ("turned", turned), ("a row repeated", repeated)] {
        let label = format!("{side}², {what}");
        cases.push(case(&STRIDED_COPY, label, &p, vec![all(1), all(2)]));
    }
    let (label, condition) = (format!("{side}²"), || words(n as usize, 2, 1));
    let buffers = vec![condition(), all(1), all(2), all(3)];
    cases.push(case(&WHERE_FORWARD, &label, &WhereForward { n }, buffers));
    let p = WhereBackward { n, side: 1, accumulate: 0 };
    cases.push(case(&WHERE_BACKWARD, label, &p, vec![condition(), all(1), all(2)]));
    cases
}
