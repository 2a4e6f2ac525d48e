//! Rows of what reads by number or by window: tables, data sets, pooling, states, updates.

use tern_engine::Data;
use tern_shaders::kernels::convolution::pooling::{
    AVERAGE_POOL_BACKWARD, AVERAGE_POOL_FORWARD, MAX_POOL_BACKWARD, MAX_POOL_FORWARD, Pool,
};
use tern_shaders::kernels::data::{
    ROWS, Rows, SELECT, STREAM, Select, Stream, WINDOWS, WORDS, Windows, Words,
};
use tern_shaders::kernels::embedding::{GATHER, Gather, SCATTER_ADD, ScatterAdd};
use tern_shaders::kernels::lstm::{STATE_BACKWARD, STATE_LOAD, STATE_STORE, State, StateBackward};
use tern_shaders::kernels::update::{DIFFERENCE, Difference, RESCALE, Rescale};
use tern_shaders::{Kernel, state};

use super::Size;
use super::memory::{record, state_words};
use super::network::chains;
use super::recipe::{Recipe, all_floats, bits, case, floats, word_below, words, words_by};

/// Rows of these families.
pub fn rows(size: Size) -> Vec<Recipe> {
    let n = size.pick(1 << 20, 1 << 24);
    [tables(n), batches(n), texts(n), pooling(n), states(n), updates(n)].concat()
}

fn tables(n: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    for width in [3, 256] {
        // Half of the words are a table.
        let vocabulary = n / 2 / width;
        let rows = n / 2 / (width + 1);
        let (table, all) = ((vocabulary * width) as usize, (rows * width) as usize);
        let tokens = words(rows as usize, vocabulary, 1);
        let label = format!("{rows} of {vocabulary} × {width}");
        let table_stride = vocabulary * width;
        let p = Gather { n: rows, width, vocabulary, table_offset: 0, table_stride };
        let buffers = vec![floats(table, 2), tokens, floats(all, 3)];
        let mut row = case(&GATHER, &label, &p, buffers);
        row.bytes = u64::from(rows) * u64::from(4 + 8 * width);
        cases.push(row);
        let p = ScatterAdd {
            n: rows,
            positions: rows,
            width,
            vocabulary,
            table_stride,
            ..ScatterAdd::default()
        };
        let buffers = vec![
            chains(rows, vocabulary, word_below(vocabulary, 1)),
            floats(all, 3),
            floats(table, 2),
        ];
        cases.push(case(&SCATTER_ADD, label, &p, buffers));
    }
    cases
}

fn batches(n: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    for shuffle in [0, 1] {
        let batch = n / 4;
        let label = format!("{batch}, shuffle {shuffle}");
        let buffers = vec![state_words(batch, batch), words(batch as usize, 1, 1)];
        cases.push(case(&SELECT, label, &Select { batch, first: 0, shuffle }, buffers));
    }
    for width in [3, 784] {
        let batch = n / (2 * width + 1);
        let (samples, all) = (batch, (batch * width) as usize);
        let index = words(batch as usize, samples, 1);
        let label = format!("{batch} × {width}");
        let p = Rows { batch, width, samples };
        let buffers = vec![floats(all, 2), index.clone(), floats(all, 3)];
        cases.push(case(&ROWS, &label, &p, buffers));
        for time_major in [0, 1] {
            let label = format!("{label}, time-major {time_major}");
            let p = Words { batch, width, samples, padding: 0, time_major };
            let buffers = vec![bits(all, 2), index.clone(), bits(all, 3)];
            cases.push(case(&WORDS, label, &p, buffers));
        }
    }
    cases
}

fn texts(n: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    for packed in [0, 1] {
        let (batch, steps) = (n / 3 / 64, 64);
        let (out, samples) = ((batch * steps) as usize, batch);
        let length = batch * steps;
        let tokens = if packed == 1 { length.div_ceil(4) } else { length } as usize;
        let tokens = bits(tokens, 1);
        let label = format!("{batch} × {steps}, packed {packed}");
        let starts = words_by(samples as usize, move |i| i * steps);
        let lens = words_by(samples as usize, move |_| steps + 1);
        let index = words(batch as usize, samples, 2);
        let p = Windows { batch, steps, length, samples, padding: 0, packed };
        let buffers = vec![tokens.clone(), starts, lens, index, bits(out, 3), bits(out, 4)];
        cases.push(case(&WINDOWS, &label, &p, buffers));
        let p = Stream { batch, steps, length, padding: 0, packed };
        // One step of a text that is as many parts as the batch has rows.
        let mut record = record(1, batch);
        record[state::ROWS] = batch;
        let record = Data::U32(record.to_vec()).into();
        let buffers = vec![tokens, record, bits(out, 3), bits(out, 4)];
        cases.push(case(&STREAM, label, &p, buffers));
    }
    cases
}

fn pooling(n: u32) -> Vec<Recipe> {
    let mut cases = Vec::new();
    for (kernel, stride, padding) in [(2, 2, 0), (3, 1, 1), (3, 2, 1)] {
        let (height, width) = (56, 56);
        let planes = n / (height * width) * 2 / 3;
        let sizes = Pool {
            planes,
            height,
            width,
            kernel_h: kernel,
            kernel_w: kernel,
            stride_h: stride,
            stride_w: stride,
            padding_h: padding,
            padding_w: padding,
            ..Pool::default()
        };
        let Some(p) = sizes.complete() else { continue };
        let (x, y) = ((planes * height * width) as usize, (planes * p.out_h * p.out_w) as usize);
        let label = format!("{planes} of {height} × {width}, {kernel} × {kernel} by {stride}");
        // Every window is won by the pixel that it sees at its center.
        let won = words_by(y, move |i| {
            let (row, column) = (i / p.out_w % p.out_h, i % p.out_w);
            (row * stride) * width + column * stride
        });
        let buffers = vec![floats(x, 1), floats(y, 2), words(y, 1, 3)];
        cases.push(case(&MAX_POOL_FORWARD, &label, &p, buffers));
        let buffers = vec![floats(y, 1), won, floats(x, 3)];
        cases.push(case(&MAX_POOL_BACKWARD, &label, &p, buffers));
        cases.push(case(&AVERAGE_POOL_FORWARD, &label, &p, vec![floats(x, 1), floats(y, 2)]));
        cases.push(case(&AVERAGE_POOL_BACKWARD, label, &p, vec![floats(y, 1), floats(x, 2)]));
    }
    cases
}

fn states(words: u32) -> Vec<Recipe> {
    let n = words / 6;
    let size = n as usize;
    let p = State { n, steps: 1, zero: 0 };
    let mut cases = Vec::new();
    let kernels: [(&'static Kernel<State>, [usize; 4]); 2] = [
        (&STATE_LOAD, [size, size, 2 * size, 2 * size]),
        (&STATE_STORE, [2 * size, 2 * size, size, size]),
    ];
    for (kernel, lengths) in kernels {
        let mut row = case(kernel, format!("{n} of 2 slots"), &p, all_floats(kernel, &lengths));
        row.bytes = 16 * u64::from(n);
        cases.push(row);
    }
    let (batch, hidden) = (10, 256);
    let stride = 4 * hidden * hidden;
    let p = StateBackward { steps: 1, batch, hidden, stride, ..StateBackward::default() };
    let state = batch * hidden;
    let lengths = [stride, 4 * state, state, state, state].map(|n| n as usize);
    let label = format!("batch {batch}, hidden {hidden}");
    let flops = 8 * u64::from(batch) * u64::from(hidden * hidden);
    cases
        .push(case(&STATE_BACKWARD, label, &p, all_floats(&STATE_BACKWARD, &lengths)).flops(flops));
    cases
}

fn updates(words: u32) -> Vec<Recipe> {
    let n = words / 3;
    let label = format!("{n}");
    let vector = |key| floats(n as usize, key);
    vec![
        case(&DIFFERENCE, &label, &Difference { n }, vec![vector(1), vector(2), vector(3)]),
        case(&RESCALE, label, &Rescale { n }, vec![floats(1, 1), vector(2)]),
    ]
}
