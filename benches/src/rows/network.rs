//! Rows of the kernels that models are made of.

use tern_engine::Data;
use tern_engine::ops::roofline;
use tern_shaders::kernels::embedding::{GATHER, Gather, LINKS, Links, SCATTER_ADD, ScatterAdd};
use tern_shaders::kernels::half::{
    NT as HALF_NT, NT_BF16, PACK, Pack, TRANSPOSE as HALF_TRANSPOSE, Transpose as HalfTranspose,
};
use tern_shaders::kernels::lstm::{
    Backward, Forward, SEQUENCE_BACKWARD, SEQUENCE_FORWARD, STATE_LOAD, STATE_STORE, STEP_BACKWARD,
    STEP_FORWARD, State,
};
use tern_shaders::kernels::matmul::{Gemm, NN, NT, TN};
use tern_shaders::kernels::pointwise::{ACTIVATION_FORWARD, ActivationForward, SCALE, Scale};
use tern_shaders::kernels::reduce::{COLUMNS, Columns, SUM, Sum};
use tern_shaders::{Activation, AnyKernel, Kernel};

use super::recipe::{
    Contents, Recipe, all_floats, case, float, floats, floats_by, word, word_below, words, words_by,
};
use super::{Size, layer_norm, loss};

/// Rows of these families.
pub fn rows(size: Size) -> Vec<Recipe> {
    [matmul(size), lstm(size), tables(size), pointwise(size), probes(size)].concat()
}

/// C = A·B, Bᵀ or Aᵀ, with M × N × K.
pub(super) fn product(kernel: &'static Kernel<Gemm>, [m, n, k]: [u32; 3]) -> Recipe {
    let (a_row, b_row) = match kernel.name {
        "matmul/nn" => (k, n),
        "matmul/nt" => (k, k),
        _ => (m, n),
    };
    let p = Gemm { m, n, k, a_row, b_row, c_row: n, splits: 1, ..Gemm::default() };
    let lengths = [m * k, k * n, n, m * n].map(|n| n as usize);
    let flops = 2 * u64::from(m) * u64::from(n) * u64::from(k);
    let label = format!("{m} × {n} × {k}");
    case(kernel, label, &p, all_floats(kernel, &lengths)).flops(flops)
}

/// C = A·Bᵀ of packed numbers.
fn packed_product(kernel: &'static Kernel<Gemm>, [m, n, k]: [u32; 3]) -> Recipe {
    let p = Gemm { m, n, k, a_row: k, b_row: k, c_row: n, splits: 1, ..Gemm::default() };
    let halves = |n: u32, key: u32| {
        let any = word(key);
        // Exponents of numbers below 1 in either format.
        words_by(n as usize / 2, move |i| any(i) & 0xbbff_bbff)
    };
    let buffers = vec![
        halves(m * k, 1),
        halves(n * k, 2),
        floats(n as usize, 3),
        floats((m * n) as usize, 4),
    ];
    let flops = 2 * u64::from(m) * u64::from(n) * u64::from(k);
    case(kernel, format!("{m} × {n} × {k}"), &p, buffers).flops(flops)
}

fn matmul(size: Size) -> Vec<Recipe> {
    let sizes = size.pick(&[256, 512, 1024][..], &[512, 1024, 2048, 4096][..]);
    let mut cases: Vec<Recipe> = sizes.iter().map(|n| product(&NN, [*n; 3])).collect();
    let side = size.pick(256, 512);
    cases.extend([&NT, &TN].map(|kernel| product(kernel, [side; 3])));
    // The char-LSTM's input projection of all time steps, and the output layer of the word LM.
    let wide = size.pick(1_000, 10_000);
    cases.extend([[800, 1024, 256], [320, wide, 256]].map(|sizes| product(&NT, sizes)));
    let sizes = size.pick(&[256][..], &[512, 1024, 4096][..]);
    cases.extend(sizes.iter().map(|n| packed_product(&HALF_NT, [*n; 3])));
    cases.extend(sizes.iter().map(|n| packed_product(&NT_BF16, [*n; 3])));
    let n = size.pick(1u32 << 20, 1 << 24);
    let buffers = vec![floats(n as usize, 1), words(n as usize / 2, 1, 2)];
    let p = Pack { n, stride: n, ..Pack::default() };
    cases.push(case(&PACK, format!("{} Mi", n >> 20), &p, buffers));
    let side = size.pick(1u32 << 10, 1 << 12);
    let n = (side * side) as usize / 2;
    let p = HalfTranspose { rows: side, columns: side };
    let buffers = vec![words(n, 1, 2), words(n, 2, 2)];
    cases.push(case(&HALF_TRANSPOSE, format!("{side} × {side}"), &p, buffers));
    cases
}

/// The char-LSTM's recurrence: batch 10, 256 hidden units.
fn lstm(size: Size) -> Vec<Recipe> {
    let (batch, hidden, gates) = (10, 256, 4 * 256);
    let long = size.pick(4, 80);
    let stride = (gates * hidden + gates) as u32;
    let mut cases = Vec::new();
    // Of two steps, the first has all there is to compute, forward and backward.
    for (steps, of, forward, backward) in
        [(1, 2, &STEP_FORWARD, &STEP_BACKWARD), (long, long, &SEQUENCE_FORWARD, &SEQUENCE_BACKWARD)]
    {
        let label = format!("{steps} of {of} steps, batch {batch}, hidden {hidden}");
        let flops = (2 * steps * batch * hidden * gates) as u64;
        let steps = of;
        let states = (steps + 1) * batch * hidden;
        let (all_gates, outputs, state) =
            (steps * batch * gates, steps * batch * hidden, batch * hidden);
        let p = Forward {
            steps: steps as u32,
            batch: batch as u32,
            hidden: hidden as u32,
            b_offset: (gates * hidden) as u32,
            stride,
            ..Forward::default()
        };
        let lengths = [stride as usize, states, states, all_gates, outputs];
        cases.push(case(forward, &label, &p, recurrent(forward, &lengths)).flops(flops));
        let p = Backward {
            t: 0,
            steps: steps as u32,
            batch: batch as u32,
            hidden: hidden as u32,
            stride,
            has_dy: 1,
            ..Backward::default()
        };
        let lengths = [stride as usize, all_gates, states, outputs, state, state, all_gates, state];
        cases.push(case(backward, &label, &p, recurrent(backward, &lengths)).flops(flops));
    }
    // With one time step, all of the buffers is read or written but for half of two.
    let n = batch * hidden;
    let p = State { n: n as u32, steps: 1, zero: 0 };
    for (kernel, lengths) in
        [(&STATE_LOAD, [n, n, 2 * n, 2 * n]), (&STATE_STORE, [2 * n, 2 * n, n, n])]
    {
        let label = format!("batch {batch}, hidden {hidden}");
        let mut row = case(kernel, label, &p, all_floats(kernel, &lengths));
        row.bytes = 16 * n as u64;
        cases.push(row);
    }
    cases
}

/// Random data with weights, the first buffer, of a size at which a recurrence is no chaos.
pub(super) fn recurrent(kernel: &AnyKernel, lengths: &[usize]) -> Vec<Contents> {
    let mut buffers = all_floats(kernel, lengths);
    let weight = float(0);
    buffers[0] = floats_by(lengths[0], move |i| weight(i) / 16.0);
    buffers
}

fn tables(size: Size) -> Vec<Recipe> {
    let mut cases = Vec::new();
    for (n, width, vocabulary) in [(800u32, 8u32, 90u32), (320, 128, 10_000)] {
        let label = format!("{n} of {vocabulary} × {width}");
        let (rows, table) = (n as usize, (vocabulary * width) as usize);
        let tokens = words(rows, vocabulary, 1);
        let p = Gather { n, width, vocabulary, table_offset: 0, table_stride: vocabulary * width };
        let buffers = vec![floats(table, 2), tokens.clone(), floats(rows * width as usize, 3)];
        let mut gather = case(&GATHER, &label, &p, buffers);
        // Of the table, only the rows that are looked up are read.
        gather.bytes = u64::from(n) * (4 + 8 * u64::from(width));
        cases.push(gather);
        let links = words((vocabulary + n) as usize, 1, 4);
        let p = Links { n, first: 0, positions: n, vocabulary };
        cases.push(case(&LINKS, &label, &p, vec![tokens, links]));
        let p = ScatterAdd {
            n,
            first: 0,
            positions: n,
            width,
            vocabulary,
            table_offset: 0,
            table_stride: vocabulary * width,
            accumulate: 0,
        };
        let buffers = vec![
            chains(n, vocabulary, word_below(vocabulary, 1)),
            floats(rows * width as usize, 3),
            floats(table, 2),
        ];
        cases.push(case(&SCATTER_ADD, label, &p, buffers));
    }
    let classes = size.pick(1_000, 10_000);
    for (rows, classes) in [(800, 90), (320, classes)] {
        cases.extend(loss::forward(rows, classes));
        cases.extend(loss::backward(rows, classes));
    }
    cases
}

/// The lists that `embedding/links` makes.
pub(super) fn chains(n: u32, vocabulary: u32, token: impl Fn(u32) -> u32 + 'static) -> Contents {
    let len = (vocabulary + n) as usize;
    Contents::by(len, move || {
        let tokens: Vec<u32> = (0..n).map(&token).collect();
        let mut link = vec![0; len];
        let p = Links { n, first: 0, positions: n, vocabulary };
        tern_shaders::kernels::embedding::links(&p, 1, &tokens, &mut link);
        Data::U32(link)
    })
}

/// What the roofline is measured by, at the sizes of the other rows.
fn probes(size: Size) -> Vec<Recipe> {
    let n = size.pick(1 << 20, 1 << 24);
    vec![
        Recipe::by(move || roofline::copy(n, 1)),
        Recipe::by(|| roofline::single(1 << 10, 1024)),
        Recipe::by(|| roofline::half(1 << 10, 1024)),
    ]
}

fn pointwise(size: Size) -> Vec<Recipe> {
    let n: usize = size.pick(1 << 20, 1 << 24);
    let label = format!("{} Mi", n >> 20);
    let both = |kernel| all_floats(kernel, &[n, n]);
    let p = ActivationForward { n: n as u32, kind: Activation::Tanh as u32 };
    let tanh = case(&ACTIVATION_FORWARD, format!("tanh, {label}"), &p, both(&ACTIVATION_FORWARD));
    let p = Scale { n: n as u32, factor: 0.5, accumulate: 0 };
    let scale = case(&SCALE, &label, &p, both(&SCALE));
    let (rows, columns) = (800, 1024);
    let p = Columns { rows, columns, parts: 1, out_stride: columns, ..Columns::default() };
    let lengths = [(rows * columns) as usize, columns as usize];
    let sums = case(&COLUMNS, format!("{rows} × {columns}"), &p, all_floats(&COLUMNS, &lengths));
    let parts = 1024;
    let p = Sum { n: n as u32, parts: parts as u32, scale: 1.0 };
    let sum = case(&SUM, label, &p, all_floats(&SUM, &[n, parts]));
    vec![tanh, scale, sums, sum, layer_norm(4096, 256)]
}
