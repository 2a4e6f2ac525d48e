//! Cases of the gathers; plans on a data set record them.
//!
//! What such a plan gathers:
//!
//! ```rust
//! # use tern_engine::{Arena, Device, Init, Parameters};
//! use tern_engine::{Batching, Data, Graph, IGNORE, RowData};
//!
//! # fn main() -> tern_engine::Result<()> {
//! # let mut parameters = Parameters::new();
//! # parameters.add("weight", &[1], Init::Zeros)?;
//! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! // Three samples of one number each, in batches of two: the second batch is short.
//! let data = RowData::upload(arena.device(), &[1.0, 2.0, 3.0], 1, &[0, 1, 2], 3)?;
//! let mut graph = Graph::new(&arena);
//! let (x, labels) = graph.row_batch(&data, &Batching::in_order(2))?;
//! graph.keep(x);
//! graph.keep(labels);
//! let loss = graph.mean(x);
//! let mut plan = graph.evaluate(loss)?;
//! plan.run(2)?;
//! assert_eq!(plan.read(x)?, Data::F32(vec![3.0, 0.0]));
//! assert_eq!(plan.read(labels)?, Data::U32(vec![2, IGNORE]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::kernels::data::{
    NONE, RESTART, ROWS, Restart, Rows, SELECT, STREAM, Select, Stream, WINDOWS, WORDS, Windows,
    Words,
};
use tern_shaders::schedule::Schedule;
use tern_shaders::state::{self, StateRecord};

use super::{Case, noise};
use crate::Data;

fn words(n: usize, key: usize, below: u32) -> Data {
    Data::U32((0..n).map(|i| ((i + key) * 2_654_435_761 % 4_294_967_291) as u32 % below).collect())
}

/// Records of replicas whose parts follow one another, the cursor near the end of the epoch.
fn records(count: u32, batch: u32, replicas: u32, stream: bool) -> Data {
    let record = |r: u32| {
        let schedule = Schedule::constant(0.1);
        let make = if stream { StateRecord::stream } else { StateRecord::new };
        let mut record = make(r + 5, r * count..(r + 1) * count, batch, 9, &schedule);
        record[state::EPOCH] = r;
        if !stream {
            let rows = (count - 1) % batch + 1;
            record[state::CURSOR] = count - rows;
            record[state::ROWS] = rows;
        } else {
            record[state::CURSOR] = count - 1;
        }
        *record
    };
    Data::U32((0..replicas).flat_map(record).collect())
}

/// Records of streams, of which every other one starts over.
fn restarting(batch: u32, replicas: u32) -> Data {
    let Data::U32(mut words) = records(4, batch, replicas, true) else {
        unreachable!("records are words")
    };
    words.iter_mut().skip(state::CURSOR).step_by(2 * state::WORDS).for_each(|cursor| *cursor = 0);
    Data::U32(words)
}

/// Sample numbers, some of them none.
fn index(n: usize, samples: u32) -> Data {
    let Data::U32(mut index) = words(n, 3, samples) else { unreachable!("words are words") };
    index.iter_mut().skip(2).step_by(5).for_each(|i| *i = NONE);
    Data::U32(index)
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (count, batch, replicas) in [(1, 1, 1), (7, 3, 3), (70_000, 100, 2), (1 << 20, 64, 1)] {
        for shuffle in [0, 1] {
            let state = records(count, batch, replicas, false);
            // Whole batches, and parts of them: some rows, or none, hold a sample.
            for first in [0, 1, batch / 2, batch] {
                let out = words((batch * replicas) as usize, 1, 99);
                cases.push(Case::new(
                    &SELECT,
                    format!("{batch} from {first} of {count} shuffle {shuffle}"),
                    &Select { batch, first, shuffle },
                    replicas as usize,
                    vec![state.clone(), out],
                ));
            }
        }
    }
    for (batch, width, samples, replicas) in
        [(1u32, 1u32, 1u32, 1usize), (5, 3, 7, 3), (9, 65, 40, 2), (70, 67, 9, 2), (5000, 2, 9, 1)]
    {
        let out = replicas * (batch * width) as usize;
        let index = index(replicas * batch as usize, samples);
        let size = (samples * width) as usize;
        let label = format!("{batch}×{width} of {samples}");
        let source = Data::F32((0..size).map(|i| i as f32 * 0.25 - 3.0).collect());
        cases.push(Case::new(
            &ROWS,
            &label,
            &Rows { batch, width, samples },
            replicas,
            vec![source, index.clone(), Data::F32(vec![9.0; out])],
        ));
        for time_major in [0, 1] {
            cases.push(Case::new(
                &WORDS,
                format!("{label} time-major {time_major}"),
                &Words { batch, width, samples, padding: 77, time_major },
                replicas,
                vec![words(size, 2, 1000), index.clone(), words(out, 4, 9)],
            ));
        }
        let n = (batch * width) as usize;
        let carried = noise(replicas * n, 1.0, 4);
        let started = Data::F32(vec![7.0; replicas * n]);
        cases.push(Case::new(
            &RESTART,
            &label,
            &Restart { n: n as u32 },
            replicas,
            vec![carried, restarting(batch, replicas as u32), started],
        ));
        for packed in [0, 1] {
            let (length, steps) = (31, width);
            let tokens = words(length as usize, 6, if packed == 1 { u32::MAX } else { 90 });
            let out = replicas * (batch * steps) as usize;
            let (inputs, targets) = (words(out, 4, 9), words(out, 5, 9));
            let windows = Windows { batch, steps, length, samples, padding: 3, packed };
            let starts = words(samples as usize, 7, length);
            let lens = words(samples as usize, 8, steps + 2);
            cases.push(Case::new(
                &WINDOWS,
                format!("{label} packed {packed}"),
                &windows,
                replicas,
                vec![tokens.clone(), starts, lens, index.clone(), inputs.clone(), targets.clone()],
            ));
            cases.push(Case::new(
                &STREAM,
                format!("{label} packed {packed}"),
                &Stream { batch, steps, length, padding: 3, packed },
                replicas,
                vec![tokens, records(4, batch, replicas as u32, true), inputs, targets],
            ));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run_cases;

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }
}
