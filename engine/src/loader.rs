//! Data sets that are too large for the device: a thread of its own reads the next samples while the
//! device trains on those that it has.
//!
//! A loader holds a part of the samples on the device, as many as it is asked to, in the place of a data
//! set: batches are taken from them as from any, in an order that is new each time. [`RowLoader::advance`]
//! and [`TextLoader::advance`] put the following ones in their place. After the last sample of a source comes
//! its first, so that a part is always whole. The thread is one part ahead, which is all the memory that a
//! source takes, however large it is.
//!
//! ```
//! use tern_engine::loader::{RowLoader, RowSource};
//! use tern_engine::nn::{Mode, ModelSpec};
//! use tern_engine::{Arena, Batching, Device, Graph, Optimizer, Result, Training};
//!
//! /// A million samples, of which none is ever kept.
//! struct Wave(usize);
//!
//! impl RowSource for Wave {
//!     fn read(&mut self, features: &mut [f32], labels: &mut [u32]) -> Result<usize> {
//!         let rows = labels.len().min(1_000_000 - self.0);
//!         for (x, label) in features.chunks_mut(2).zip(labels).take(rows) {
//!             let angle = self.0 as f32;
//!             x.copy_from_slice(&[angle.sin(), angle.cos()]);
//!             *label = u32::from(x[0] > 0.0);
//!             self.0 += 1;
//!         }
//!         Ok(rows)
//!     }
//!
//!     fn rewind(&mut self) -> Result<()> {
//!         self.0 = 0;
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let (parameters, model) = ModelSpec::mlp(2, &[8], 2).build()?;
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! // 640 samples at a time, of two features and two classes.
//! let mut loader = RowLoader::new(arena.device(), Wave(0), 640, (2, 2))?;
//! let mut graph = Graph::new(&arena);
//! let (x, labels) = graph.row_batch(loader.data(), &Batching::shuffled(32))?;
//! let logits = model.forward(&mut graph, x, Mode::Train)?.output;
//! let loss = graph.cross_entropy(logits, labels)?;
//! let mut plan = graph.train(loss, &Training::new(Optimizer::adam(), 1e-2))?;
//! for part in 0..5 {
//!     if part > 0 {
//!         loader.advance()?;
//!     }
//!     plan.run(loader.data().len() / 32)?;
//! }
//! # Ok(())
//! # }
//! ```

mod file;

use std::sync::mpsc::{Receiver, sync_channel};

use crate::{Device, Error, Result, RowData, TextData, TextWindows};
pub use file::{RowFile, TokenFile};

/// Where rows of features with a class each come from, in an order that is always the same.
pub trait RowSource: Send + 'static {
    /// Writes the next rows from the front of `features` `[n, width]` and `labels` `[n]`, and gives their
    /// number, which is less than n only at the end.
    ///
    /// # Errors
    /// What keeps it from reading; training ends with it.
    fn read(&mut self, features: &mut [f32], labels: &mut [u32]) -> Result<usize>;

    /// The next row is the first.
    ///
    /// # Errors
    /// As [`RowSource::read`].
    fn rewind(&mut self) -> Result<()>;
}

/// Where the tokens of one long text come from.
pub trait TokenSource: Send + 'static {
    /// Writes the next tokens from the front, and gives their number, which is less than there is room for
    /// only at the end.
    ///
    /// # Errors
    /// What keeps it from reading; training ends with it.
    fn read(&mut self, tokens: &mut [u32]) -> Result<usize>;

    /// The next token is the first.
    ///
    /// # Errors
    /// As [`TokenSource::read`].
    fn rewind(&mut self) -> Result<()>;
}

/// Fills all `n` places: `read` is given the first one that is empty, and gives how many it filled.
fn fill<S>(
    source: &mut S,
    n: usize,
    mut read: impl FnMut(&mut S, usize) -> Result<usize>,
    rewind: impl Fn(&mut S) -> Result<()>,
) -> Result<()> {
    let (mut at, mut rewound) = (0, false);
    loop {
        let more = read(source, at)?;
        if more > n - at {
            let expected = format!("{} at most", n - at);
            return Err(Error::value("samples that a source gave", more, expected));
        }
        at += more;
        if at == n {
            return Ok(());
        }
        if rewound && more == 0 {
            return Err(Error::value("samples of a source", 0, "at least 1"));
        }
        rewind(source)?;
        rewound = true;
    }
}

/// What a thread makes, one after the other, one ahead of what was taken. The thread ends with it, or with
/// an error, which is the last thing that it gives.
struct Ahead<T>(Receiver<Result<T>>);

impl<T: Send + 'static> Ahead<T> {
    fn start(mut make: impl FnMut() -> Result<T> + Send + 'static) -> Result<Self> {
        let (sender, made) = sync_channel(0);
        let run = move || {
            loop {
                let next = make();
                let ends = next.is_err();
                if sender.send(next).is_err() || ends {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("tern-loader".into());
        match thread.spawn(run) {
            Ok(_) => Ok(Ahead(made)),
            Err(error) => Err(Error::value("thread of a loader", error, "one that starts")),
        }
    }

    fn next(&mut self) -> Result<T> {
        let expected = "one that goes on: it ended with an error before, or panicked";
        self.0.recv().unwrap_or_else(|_| Err(Error::value("source of a loader", "gone", expected)))
    }
}

/// A part of the rows of a source, on the device.
pub struct RowLoader {
    device: Device,
    data: RowData,
    parts: Ahead<(Vec<f32>, Vec<u32>)>,
}

impl RowLoader {
    /// Begins with the first `rows` samples of a source, of `width` features and classes below `classes`.
    /// Parts are best a multiple of the batch: the last batch of another is short.
    ///
    /// # Errors
    /// [`Error::Value`] for no rows or no width; those of the source; as [`RowData::upload`].
    pub fn new(
        device: &Device,
        mut source: impl RowSource,
        rows: usize,
        (width, classes): (usize, usize),
    ) -> Result<Self> {
        if rows == 0 || width == 0 {
            let given = format!("{rows} and {width}");
            return Err(Error::value("rows and width of a loader", given, "at least 1"));
        }
        let mut parts = Ahead::start(move || {
            let (mut features, mut labels) = (vec![0.0; rows * width], vec![0; rows]);
            let read = |source: &mut _, at: usize| {
                RowSource::read(source, &mut features[at * width..], &mut labels[at..])
            };
            fill(&mut source, rows, read, RowSource::rewind)?;
            Ok((features, labels))
        })?;
        let (features, labels) = parts.next()?;
        let data = RowData::upload(device, &features, width, &labels, classes)?.of_classes(classes);
        Ok(RowLoader { device: device.clone(), data, parts })
    }

    /// The samples that the device has.
    pub fn data(&self) -> &RowData {
        &self.data
    }

    /// Puts the next samples of the source in their place; plans that take batches of them go on with
    /// these.
    ///
    /// # Errors
    /// Those of the source, of [`RowData::upload`], and of the device. The samples are those from before.
    pub fn advance(&mut self) -> Result<()> {
        let (features, labels) = self.parts.next()?;
        self.data.replace(&self.device, features, labels)
    }
}

/// A part of the windows of a long text, on the device.
pub struct TextLoader {
    device: Device,
    data: TextData,
    parts: Ahead<Vec<u32>>,
}

impl TextLoader {
    /// Begins with the first `count` windows of a source. As in a [`TextData`] of all of it, each
    /// token is a target of the next window or part if it is of none before.
    ///
    /// # Errors
    /// [`Error::Value`] for no windows, or a stride of more than a window's steps; those of the source; as
    /// [`TextData::upload`].
    pub fn new(
        device: &Device,
        mut source: impl TokenSource,
        count: usize,
        windows: TextWindows,
    ) -> Result<Self> {
        let TextWindows { steps, stride, .. } = windows;
        if count == 0 {
            return Err(Error::value("windows of a loader", 0, "at least 1"));
        }
        if !(1..=steps).contains(&stride) {
            let expected = format!("1 up to the steps of a window, {steps}");
            return Err(Error::value("stride of a loader's windows", stride, expected));
        }
        // The last window has a last target.
        let length = (count - 1) * stride + steps + 1;
        let mut tokens = vec![0; length];
        let mut begun = false;
        let mut parts = Ahead::start(move || {
            // The next part begins a stride after the last window's begin.
            let kept = if begun { length - count * stride } else { 0 };
            tokens.copy_within(length - kept.., 0);
            begun = true;
            let read =
                |source: &mut _, at: usize| TokenSource::read(source, &mut tokens[kept + at..]);
            fill(&mut source, length - kept, read, TokenSource::rewind)?;
            Ok(tokens.clone())
        })?;
        let first = [parts.next()?];
        let data = device.wait(TextData::upload_first(device, &first, windows, count))?;
        let data = data.of_tokens(windows.vocabulary);
        Ok(TextLoader { device: device.clone(), data, parts })
    }

    /// The windows that the device has.
    pub fn data(&self) -> &TextData {
        &self.data
    }

    /// Puts the next windows of the source in their place; plans that take batches of them go on with
    /// these.
    ///
    /// # Errors
    /// Those of the source, of [`TextData::upload`], and of the device. The windows are those from before.
    pub fn advance(&mut self) -> Result<()> {
        let tokens = self.parts.next()?;
        self.data.replace(&self.device, &tokens)
    }
}

#[cfg(test)]
mod tests;
