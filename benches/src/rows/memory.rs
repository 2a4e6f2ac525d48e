//! Rows that memory bounds: every kernel once by wide rows, and once more by the shapes that
//! are awkward for vectors, rows of two or three numbers or one operand of a single number.
//!
//! The buffers of a row are 64 MiB together, beyond the caches; quick ones 4 MiB.

use tern_engine::Data;
use tern_shaders::kernels::dropout::{self, threshold};
use tern_shaders::kernels::loss::{
    COUNT_TARGETS, ELEMENTWISE_BACKWARD, ELEMENTWISE_FORWARD, ElementLoss, ElementwiseBackward,
    ElementwiseForward, MEAN, Rows as LossRows,
};
use tern_shaders::kernels::metrics::{ACCURACY, Accuracy, RANK, Rank, TOP_K, TopK};
use tern_shaders::kernels::normalize::{
    LAYER_NORM_BACKWARD, LAYER_NORM_BACKWARD_PARAMETERS, LayerNormBackward,
    LayerNormBackwardParameters, RMS_NORM_BACKWARD, RMS_NORM_BACKWARD_WEIGHT, RMS_NORM_FORWARD,
    RmsNormBackward, RmsNormBackwardWeight, RmsNormForward,
};
use tern_shaders::kernels::pointwise::*;
use tern_shaders::kernels::reduce::{
    COLUMNS, Columns, ROWS, ROWS_BACKWARD, Reduction, Rows, RowsBackward,
};
use tern_shaders::schedule::Schedule;
use tern_shaders::state::{self, StateRecord};
use tern_shaders::{Activation, Kernel};

use super::recipe::{
    Contents, Recipe, all_floats, case, float, floats, floats_by, repeated, words,
};
use super::{Size, layer_norm, loss};

/// Rows of these families.
pub fn rows(size: Size) -> Vec<Recipe> {
    let words = size.pick(1 << 20, 1 << 24);
    [
        activations(words),
        binaries(words),
        moves(words),
        reductions(words),
        softmax(words),
        normalization(words),
        rms_normalization(words),
        losses(words),
        metrics(words),
        masks(words),
    ]
    .concat()
}

/// A row whose buffers are all floats.
fn plain<P: bytemuck::Pod>(
    kernel: &'static Kernel<P>,
    label: impl Into<String>,
    p: &P,
    lengths: &[u32],
) -> Recipe {
    let lengths: Vec<usize> = lengths.iter().map(|n| *n as usize).collect();
    case(kernel, label, p, all_floats(kernel, &lengths))
}

fn millions(n: u32) -> String {
    format!("{:.1} Mi", f64::from(n) / f64::from(1 << 20))
}

/// The record of a replica in its second step.
pub(super) fn record(count: u32, batch: u32) -> StateRecord {
    let mut record = StateRecord::new(1, 0..count, batch, u32::MAX, &Schedule::constant(1e-3));
    record[state::STEP] = 1;
    record
}

/// That record as a buffer.
pub(super) fn state_words(count: u32, batch: u32) -> Contents {
    Data::U32(record(count, batch).to_vec()).into()
}

fn activations(words: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    let kinds = [
        Activation::Relu,
        Activation::Sigmoid,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
    ];
    for kind in kinds {
        let n = words / 2;
        let p = ActivationForward { n, kind: kind as u32 };
        let label = format!("{kind:?}, {}", millions(n));
        cases.push(plain(&ACTIVATION_FORWARD, label, &p, &[n, n]));
        let n = words / 4;
        let p = ActivationBackward { n, kind: kind as u32, accumulate: 0 };
        let label = format!("{kind:?}, {}", millions(n));
        let mut row = plain(&ACTIVATION_BACKWARD, label, &p, &[n; 4]);
        // Each derivative follows from one of x and y.
        row.bytes = 12 * u64::from(n);
        cases.push(row);
    }
    let n = words / 3;
    let p = SwigluForward { n };
    cases.push(plain(&SWIGLU_FORWARD, millions(n), &p, &[n; 3]));
    let n = words / 5;
    let p = SwigluBackward { n, gate_mode: 0, up_mode: 0 };
    cases.push(plain(&SWIGLU_BACKWARD, millions(n), &p, &[n; 5]));
    cases
}

fn binaries(words: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    let kind = Binary::Multiply as u32;
    for period in [0, 1, 3, 512] {
        // 0: operands of equal shapes.
        let n = if period == 0 { words / 3 } else { words / 2 / 512 * 512 / 3 * 3 };
        let period = if period == 0 { n } else { period };
        let n = n / period * period;
        let label = format!("{} by {period}", millions(n));
        let p = BinaryForward { n, period, kind };
        cases.push(plain(&BINARY_FORWARD, &label, &p, &[n, period, n]));
        let p = BinaryBackwardLeft { n, period, kind, accumulate: 0 };
        cases.push(plain(&BINARY_BACKWARD_LEFT, &label, &p, &[period, n, n]));
        let p = BinaryBackwardRight {
            rows: n / period,
            period,
            kind,
            end: n / period,
            ..BinaryBackwardRight::default()
        };
        let mut row = plain(&BINARY_BACKWARD_RIGHT, label, &p, &[n, n, period]);
        // Sums of millions of numbers, in f32.
        row.tolerance = 2e-4;
        cases.push(row);
    }
    cases
}

fn moves(words: u32) -> Vec<Recipe> {
    let n = words / 2;
    let p = ScaleBy { n, factor: 0.5, accumulate: 0 };
    let mut cases = vec![
        plain(&SCALE_BY, millions(n), &p, &[n, 1, n]),
        plain(
            &FILL,
            millions(words),
            &Fill { n: words, stride: words, ..Fill::default() },
            &[words],
        ),
    ];
    for (width, row) in [(512, 1024), (3, 6)] {
        let rows = words / (row + width);
        let p = Copy { rows, width, x_row: row, y_row: width, ..Copy::default() };
        let label = format!("{rows} × {width} of {row}");
        let mut row = plain(&COPY, label, &p, &[rows * row, rows * width]);
        row.bytes = 8 * u64::from(rows * width);
        cases.push(row);
    }
    let side = words.isqrt() / 2;
    for (outer, a, b, inner) in [
        (2, side, side, 1),
        (1, words / 6, 3, 1),
        (1, 3, words / 6, 1),
        (words / 512, 16, 16, 1),
        (1, 64, words / 4096, 32),
        (1, 1000, words / 4000, 2),
    ] {
        let n = outer * a * b * inner;
        let label = format!("{outer} × {a} × {b} × {inner}");
        let p = Transpose { outer, a, b, inner, accumulate: 0 };
        cases.push(plain(&TRANSPOSE, label, &p, &[n, n]));
    }
    cases
}

fn reductions(words: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    for columns in [1, 2, 3, 10, 512] {
        let rows = words / columns;
        let p = Columns { rows, columns, parts: 1, out_stride: columns, ..Columns::default() };
        let label = format!("{rows} × {columns}");
        let mut row = plain(&COLUMNS, label, &p, &[rows * columns, columns]);
        row.tolerance = 2e-4;
        cases.push(row);
        for kind in [Reduction::Sum, Reduction::Max] {
            let rows = words / (columns + 1);
            let label = format!("{kind:?}, {rows} × {columns}");
            let p = Rows { rows, columns, kind: kind as u32 };
            cases.push(plain(&ROWS, label, &p, &[rows * columns, rows]));
            let rows = words / (2 * columns + 2);
            let p = RowsBackward { rows, columns, kind: kind as u32, accumulate: 0 };
            let label = format!("{kind:?}, {rows} × {columns}");
            let n = rows * columns;
            let mut buffers = all_floats(&ROWS_BACKWARD, &[n, rows, rows, n].map(|n| n as usize));
            let mut bytes = 4 * u64::from(n + rows);
            if kind == Reduction::Max {
                bytes += 4 * u64::from(n + rows);
                let x = float(0);
                buffers[1] = floats_by(rows as usize, move |row| {
                    (row * columns..(row + 1) * columns).map(&x).fold(f32::MIN, f32::max)
                });
            }
            let mut row = case(&ROWS_BACKWARD, label, &p, buffers);
            row.bytes = bytes;
            cases.push(row);
        }
    }
    cases
}

fn softmax(words: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    for classes in [2, 10, 1000] {
        for logarithm in [0, 1] {
            let rows = words / 2 / classes;
            let n = rows * classes;
            let label = format!("{rows} × {classes}, logarithm {logarithm}");
            let p = SoftmaxForward { rows, classes, logarithm };
            cases.push(plain(&SOFTMAX_FORWARD, label, &p, &[n, n]));
            let rows = words / 3 / classes;
            let n = rows * classes;
            let label = format!("{rows} × {classes}, logarithm {logarithm}");
            let p = SoftmaxBackward { rows, classes, logarithm, accumulate: 0 };
            cases.push(plain(&SOFTMAX_BACKWARD, label, &p, &[n, n, n]));
        }
    }
    cases
}

fn normalization(words: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    for width in [2, 3, 512] {
        let stride = 2 * width;
        cases.push(layer_norm(words / (2 * width + 2), width));
        let rows = words / (3 * width + 2);
        let n = rows * width;
        let label = format!("{rows} × {width}");
        let p = LayerNormBackward { rows, width, gamma_offset: 0, stride, accumulate: 0 };
        let lengths = [n, stride, rows, rows, n, n];
        cases.push(plain(&LAYER_NORM_BACKWARD, label, &p, &lengths));
        let rows = words / (2 * width + 2);
        let n = rows * width;
        let label = format!("{rows} × {width}");
        let p = LayerNormBackwardParameters {
            rows,
            width,
            beta_offset: width,
            stride,
            end: rows,
            ..LayerNormBackwardParameters::default()
        };
        let lengths = [n, rows, rows, n, stride];
        let mut row = plain(&LAYER_NORM_BACKWARD_PARAMETERS, label, &p, &lengths);
        row.tolerance = 2e-4;
        cases.push(row);
    }
    cases
}

fn rms_normalization(words: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    for width in [2, 3, 512] {
        let rows = words / (2 * width + 1);
        let (n, label) = (rows * width, format!("{rows} × {width}"));
        let p = RmsNormForward { rows, width, epsilon: 1e-5, weight_offset: 0, stride: width };
        cases.push(plain(&RMS_NORM_FORWARD, &label, &p, &[n, width, n, rows]));
        let p = RmsNormBackwardWeight {
            rows,
            width,
            stride: width,
            end: rows,
            ..RmsNormBackwardWeight::default()
        };
        let mut row = plain(&RMS_NORM_BACKWARD_WEIGHT, label, &p, &[n, rows, n, width]);
        row.tolerance = 2e-4;
        cases.push(row);
        let rows = words / (3 * width + 1);
        let n = rows * width;
        let p = RmsNormBackward { rows, width, weight_offset: 0, stride: width, accumulate: 0 };
        let label = format!("{rows} × {width}");
        cases.push(plain(&RMS_NORM_BACKWARD, label, &p, &[n, width, rows, n, n]));
    }
    cases
}

fn losses(n: u32) -> Vec<Recipe> {
    let p = LossRows { rows: n };
    let mut mean = plain(&MEAN, millions(n), &p, &[n, 1, 1]);
    mean.tolerance = 2e-4;
    let targets = |n: u32, classes: u32| words(n as usize, classes, 1);
    let count = case(&COUNT_TARGETS, millions(n), &p, vec![targets(n, 10), floats(1, 2)]);
    let mut cases = vec![mean, count];
    let count = |rows: u32| repeated([rows as f32], 1);
    for kind in [ElementLoss::SquaredError, ElementLoss::BinaryCrossEntropy] {
        for width in [1, 3, 512] {
            let rows = n / (2 * width + 1);
            let label = format!("{kind:?}, {rows} × {width}");
            let all = (rows * width) as usize;
            let p = ElementwiseForward { rows, width, kind: kind as u32 };
            let buffers =
                vec![floats(all, 1), floats(all, 2), count(rows), floats(rows as usize, 3)];
            cases.push(case(&ELEMENTWISE_FORWARD, label, &p, buffers));
            let rows = n / (3 * width);
            let label = format!("{kind:?}, {rows} × {width}");
            let all = (rows * width) as usize;
            let p = ElementwiseBackward { rows, width, kind: kind as u32, accumulate: 0 };
            let buffers =
                vec![floats(all, 1), floats(all, 2), count(rows), floats(1, 3), floats(all, 4)];
            cases.push(case(&ELEMENTWISE_BACKWARD, label, &p, buffers));
        }
    }
    for classes in [2, 10] {
        cases.extend(loss::forward(n / (classes + 3), classes));
        cases.extend(loss::backward(n / (2 * classes + 2), classes));
    }
    cases
}

fn metrics(n: u32) -> Vec<Recipe> {
    let p = Accuracy { rows: n, k: 3, accumulate: 0 };
    let mut cases =
        vec![case(&ACCURACY, millions(n), &p, vec![words(n as usize, 10, 1), words(3, 1, 2)])];
    for classes in [2, 10, 1000] {
        let rows = n / (classes + 2);
        let (count, all) = (rows as usize, (rows * classes) as usize);
        let label = format!("{rows} × {classes}");
        let buffers = vec![floats(all, 1), words(count, classes, 2), words(count, 1, 3)];
        cases.push(case(&RANK, &label, &Rank { rows, classes }, buffers));
        let k = classes.min(5);
        let rows = n / (classes + 2 * k);
        let taken = (rows * k) as usize;
        let label = format!("{k} of {rows} × {classes}");
        let buffers =
            vec![floats((rows * classes) as usize, 1), floats(taken, 2), words(taken, 1, 3)];
        cases.push(case(&TOP_K, label, &TopK { rows, classes, k }, buffers));
    }
    cases
}

fn masks(words: u32) -> Vec<Recipe> {
    let n = words / 2;
    let vector = |key| floats(n as usize, key);
    let (threshold, scale) = (threshold(0.25), 1.0 / 0.75);
    let buffers = || vec![vector(1), state_words(1, 1), vector(2)];
    let p = dropout::Forward { n, threshold, scale, operation: 3 };
    let forward = case(&dropout::FORWARD, millions(n), &p, buffers());
    let p = dropout::Backward { n, threshold, scale, operation: 3, accumulate: 0 };
    vec![forward, case(&dropout::BACKWARD, millions(n), &p, buffers())]
}
