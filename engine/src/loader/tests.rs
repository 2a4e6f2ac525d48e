use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::tensor::{Dtype, TensorView};

use super::*;
use crate::nn::{Mode, ModelSpec};
use crate::{Arena, Batching, Data, Flat, Graph, IGNORE, Optimizer, Parameters, Tensor, Training};

/// Samples whose features are their number and its negative, and so are its labels, modulo 7.
struct Numbers {
    count: usize,
    next: usize,
    read: Arc<AtomicUsize>,
}

impl Numbers {
    fn new(count: usize) -> Self {
        Numbers { count, next: 0, read: Arc::default() }
    }
}

impl RowSource for Numbers {
    fn read(&mut self, features: &mut [f32], labels: &mut [u32]) -> Result<usize> {
        let rows = labels.len().min(self.count - self.next);
        for (x, label) in features.chunks_mut(2).zip(labels).take(rows) {
            x.copy_from_slice(&[self.next as f32, -(self.next as f32)]);
            *label = self.next as u32 % 7;
            self.next += 1;
        }
        self.read.fetch_add(rows, Ordering::SeqCst);
        Ok(rows)
    }

    fn rewind(&mut self) -> Result<()> {
        self.next = 0;
        Ok(())
    }
}

impl TokenSource for Numbers {
    fn read(&mut self, tokens: &mut [u32]) -> Result<usize> {
        let n = tokens.len().min(self.count - self.next);
        for token in &mut tokens[..n] {
            *token = self.next as u32;
            self.next += 1;
        }
        Ok(n)
    }

    fn rewind(&mut self) -> Result<()> {
        RowSource::rewind(self)
    }
}

/// A plan that takes one batch after the other: its inputs and targets, step by step.
struct Batches {
    plan: crate::Plan,
    tensors: [Tensor; 2],
}

impl Batches {
    fn of(device: &Device, record: impl FnOnce(&mut Graph) -> Result<(Tensor, Tensor)>) -> Self {
        let (parameters, _) = ModelSpec::mlp(1, &[], 1).build().unwrap();
        let arena = Arena::new(device, &parameters, &[1]).unwrap();
        let mut graph = Graph::new(&arena);
        let (x, targets) = record(&mut graph).unwrap();
        graph.keep(x);
        graph.keep(targets);
        let loss = graph.constant(0.0, &[1]);
        Batches { plan: graph.evaluate(loss).unwrap(), tensors: [x, targets] }
    }

    fn next(&mut self) -> [Data; 2] {
        self.plan.run(1).unwrap();
        self.tensors.map(|tensor| self.plan.read(tensor).unwrap())
    }
}

fn error<T>(result: Result<T>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn parts_follow_each_other_and_the_end_is_followed_by_the_begin() {
    for device in [Device::cpu(), Device::reference_f64()] {
        let mut loader = RowLoader::new(&device, Numbers::new(10), 4, (2, 7)).unwrap();
        assert_eq!((loader.data().len(), loader.data().classes()), (4, 7));
        let mut batches =
            Batches::of(&device, |g| g.row_batch(loader.data(), &Batching::in_order(2)));
        for part in 0..6 {
            if part > 0 {
                loader.advance().unwrap();
            }
            for batch in 0..2 {
                let first = 4 * part + 2 * batch;
                let numbers = [first % 10, (first + 1) % 10];
                let x = numbers.iter().flat_map(|n| [*n as f32, -(*n as f32)]).collect();
                let labels = numbers.map(|n| n as u32 % 7).to_vec();
                assert_eq!(batches.next(), [Data::F32(x), Data::U32(labels)], "{part} {batch}");
            }
        }
    }
}

/// Windows beside each other and overlapping ones; of a small and a large vocabulary; a text whose end is
/// within a window.
#[test]
fn windows_go_on_where_the_part_before_ended() {
    let device = Device::cpu();
    for (stride, vocabulary) in [(3, 50), (2, 50), (1, 1000), (3, 1000)] {
        let windows = TextWindows::new(vocabulary, 3).stride(stride);
        let mut loader = TextLoader::new(&device, Numbers::new(50), 4, windows).unwrap();
        assert_eq!((loader.data().len(), loader.data().vocabulary()), (4, vocabulary));
        let mut batches =
            Batches::of(&device, |g| g.text_batch(loader.data(), &Batching::in_order(4)));
        for part in 0..9 {
            if part > 0 {
                loader.advance().unwrap();
            }
            let token = |window: usize, t: usize| (((4 * part + window) * stride + t) % 50) as u32;
            let shifted = |by: usize| {
                Data::U32((0..3).flat_map(|t| (0..4).map(move |w| token(w, t + by))).collect())
            };
            assert_eq!(batches.next(), [shifted(0), shifted(1)], "stride {stride}, part {part}");
        }
    }
}

#[test]
fn a_source_is_read_one_part_ahead() {
    let (source, device) = (Numbers::new(1_000_000), Device::cpu());
    let read = source.read.clone();
    let mut loader = RowLoader::new(&device, source, 100, (2, 7)).unwrap();
    for part in 1..20 {
        loader.advance().unwrap();
        // One that is used, one that waits, and one that may be made as it is taken.
        let read = read.load(Ordering::SeqCst);
        assert!((100 * (part + 1)..=100 * (part + 2)).contains(&read), "{read} after part {part}");
    }
}

/// A source that goes wrong in some way once it has given some.
struct Wrong(usize, fn(&mut [f32], &mut [u32]) -> Result<usize>);

impl RowSource for Wrong {
    fn read(&mut self, features: &mut [f32], labels: &mut [u32]) -> Result<usize> {
        if self.0 == 0 {
            return (self.1)(features, labels);
        }
        self.0 -= 1;
        Ok(labels.len())
    }

    fn rewind(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_wrong_with_a_source_is_said() {
    let device = Device::cpu();
    let new = |source: Wrong| RowLoader::new(&device, source, 4, (2, 7));
    let empty = |_: &mut [f32], _: &mut [u32]| Ok(0);
    assert!(error(new(Wrong(0, empty))).contains("samples of a source is 0"));
    let much = |_: &mut [f32], labels: &mut [u32]| Ok(labels.len() + 1);
    assert!(error(new(Wrong(0, much))).contains("is 5, expected 4 at most"));
    let strange = |_: &mut [f32], labels: &mut [u32]| {
        labels[2] = 7;
        Ok(labels.len())
    };
    let mut loader = new(Wrong(1, strange)).unwrap();
    assert!(error(loader.advance()).contains("label of sample 2 is 7, expected below 7"));
    // The source isn't asked again after an error of its own.
    let broken = |_: &mut [f32], _: &mut [u32]| Err(Error::value("disk", "gone", "one"));
    let mut loader = new(Wrong(2, broken)).unwrap();
    loader.advance().unwrap();
    assert!(error(loader.advance()).contains("disk is gone"));
    assert!(error(loader.advance()).contains("source of a loader is gone"));
    let panics = |_: &mut [f32], _: &mut [u32]| panic!("a source of one's own");
    let mut loader = new(Wrong(1, panics)).unwrap();
    assert!(error(loader.advance()).contains("source of a loader is gone"));
    assert!(error(RowLoader::new(&device, Numbers::new(3), 0, (2, 7))).contains("0 and 2"));
    let windows = TextWindows::new(50, 3);
    let text = |count, windows| TextLoader::new(&device, Numbers::new(50), count, windows);
    assert!(error(text(0, windows)).contains("windows of a loader is 0"));
    assert!(error(text(2, windows.stride(4))).contains("stride of a loader's windows is 4"));
    let small = TextWindows::new(10, 3);
    assert!(error(text(4, small)).contains("token 10 is 10"));
}

/// A file with tensors of given types, bytes and shapes.
fn file(name: &str, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tern-loader-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    let views: HashMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
        })
        .collect();
    safetensors::serialize_to_file(&views, None, &path).unwrap();
    path
}

fn bytes<const N: usize, T: Copy>(values: &[T], to: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| to(*value)).collect()
}

/// Steps on a file in parts are those on all of it, bit for bit.
#[test]
fn a_file_in_parts_trains_as_a_whole() {
    let x: Vec<f32> = (0..24 * 6).map(|i| (0.7 * i as f32).sin()).collect();
    let labels: Vec<i64> = (0..24).map(|i| if i == 5 { -100 } else { i * i % 5 }).collect();
    let path = file(
        "rows.safetensors",
        &[
            ("x", Dtype::F32, &[24, 2, 3], bytes(&x, f32::to_le_bytes)),
            ("y", Dtype::I64, &[24], bytes(&labels, i64::to_le_bytes)),
        ],
    );
    let (parameters, model) = ModelSpec::mlp(6, &[9], 5).build().unwrap();
    let device = Device::cpu();
    let begin = |parameters: &Parameters, data: &RowData| {
        let arena = Arena::new(&device, parameters, &[3]).unwrap();
        let mut graph = Graph::new(&arena);
        let (x, labels) = graph.row_batch(data, &Batching::in_order(4)).unwrap();
        let logits = model.forward(&mut graph, x, Mode::Train).unwrap().output;
        let loss = graph.cross_entropy(logits, labels).unwrap();
        (graph.train(loss, &Training::new(Optimizer::adam(), 0.01)).unwrap(), arena)
    };
    let whole: Vec<u32> = labels.iter().map(|l| if *l < 0 { IGNORE } else { *l as u32 }).collect();
    let whole = RowData::upload(&device, &x, 6, &whole, 5).unwrap();
    let (mut plan, arena) = begin(&parameters, &whole);
    let losses = plan.run(12).unwrap().by_replica;
    let expected = arena.read(Flat::Parameters, 0).unwrap();

    let source = RowFile::open(&path, "x", "y").unwrap();
    assert_eq!((source.rows(), source.width()), (24, 6));
    let mut loader = RowLoader::new(&device, source, 8, (6, 5)).unwrap();
    let (mut plan, arena) = begin(&parameters, loader.data());
    let mut found = plan.run(2).unwrap().by_replica.remove(0);
    for _ in 1..6 {
        loader.advance().unwrap();
        found.extend(plan.run(2).unwrap().by_replica.remove(0));
    }
    assert_eq!((vec![found], arena.read(Flat::Parameters, 0).unwrap()), (losses, expected));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn files_hold_floats_and_whole_numbers_of_any_width() {
    let halves: Vec<u8> = bytes(&[0.5f32, -2.0, 3.0], |x| half::f16::from_f32(x).to_le_bytes());
    let path = file(
        "types.safetensors",
        &[
            ("half", Dtype::F16, &[3], halves),
            ("nan", Dtype::F32, &[3, 1], bytes(&[1.0, 2.0, f32::NAN], f32::to_le_bytes)),
            ("bytes", Dtype::U8, &[3], vec![7, 0, 255]),
            ("shorts", Dtype::I16, &[3], bytes(&[1i16, 300, -2], i16::to_le_bytes)),
            ("two", Dtype::U32, &[2], bytes(&[1u32, 2], u32::to_le_bytes)),
            ("grid", Dtype::U32, &[1, 2], bytes(&[1u32, 2], u32::to_le_bytes)),
        ],
    );
    let (mut x, mut y) = ([0.0; 3], [0; 3]);
    let mut source = RowFile::open(&path, "half", "bytes").unwrap();
    assert_eq!(RowSource::read(&mut source, &mut x, &mut y).unwrap(), 3);
    assert_eq!((x, y), ([0.5, -2.0, 3.0], [7, 0, 255]));
    assert_eq!(RowSource::read(&mut source, &mut x, &mut y).unwrap(), 0);
    source.rewind().unwrap();
    assert!(error(source.read(&mut [0.0; 6], &mut y)).contains("has rows of 1, but of 2 features"));

    let rows = |x, y| RowFile::open(&path, x, y);
    let told = error(rows("nan", "bytes").unwrap().read(&mut x, &mut y));
    assert!(told.contains("`nan`[2, 0] is NaN"), "{told}");
    let told = error(rows("bytes", "bytes").unwrap().read(&mut x, &mut y));
    assert!(told.contains("`bytes` holds U8, expected f32"), "{told}");
    let told = error(rows("half", "nan"));
    assert!(told.contains("`nan` is [3, 1], expected [3]"), "{told}");
    assert!(error(rows("half", "two")).contains("`two` is [2], expected [3]"));
    let told = error(rows("what", "two"));
    assert!(told.contains("has no tensor `what`, but bytes, grid, half"), "{told}");
    let mut tokens = TokenFile::open(&path, "shorts").unwrap();
    assert_eq!(tokens.tokens(), 3);
    let told = error(tokens.read(&mut y));
    assert!(told.contains("`shorts`[2] is -2, expected 0 to below 2^32 - 1"), "{told}");
    assert!(error(TokenFile::open(&path, "grid")).contains("expected one axis"));

    let whole = std::fs::read(&path).unwrap();
    for length in [0, 7, 8, 60, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let told = error(TokenFile::open(&path, "bytes").and_then(|mut t| t.read(&mut y)));
        assert!(told.contains("types.safetensors"), "{length}: {told}");
    }
    std::fs::remove_file(path).unwrap();
}
