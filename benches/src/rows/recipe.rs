//! Cases that are made when their turn comes: all of a full run together are tens of gigabytes.

use std::fmt;
use std::rc::Rc;

use tern_engine::Data;
use tern_engine::ops::Case;
use tern_shaders::kernels::random::{pcg4d, uniform};
use tern_shaders::{Access, AnyKernel, Element, Kernel};

/// What a buffer will hold.
#[derive(Clone)]
pub struct Contents {
    len: usize,
    make: Rc<dyn Fn() -> Data>,
}

impl Contents {
    /// So many elements by a function.
    pub fn by(len: usize, make: impl Fn() -> Data + 'static) -> Self {
        Contents { len, make: Rc::new(make) }
    }

    /// The elements.
    pub fn data(&self) -> Data {
        (self.make)()
    }
}

impl From<Data> for Contents {
    fn from(data: Data) -> Self {
        Contents::by(data.len(), move || data.clone())
    }
}

/// Floats by a function of their number.
pub fn floats_by(n: usize, float: impl Fn(u32) -> f32 + 'static) -> Contents {
    Contents::by(n, move || Data::F32((0..n as u32).map(&float).collect()))
}

/// A number in [−1, 1) for each place.
pub fn float(key: u32) -> impl Fn(u32) -> f32 {
    move |i| 2.0 * uniform(pcg4d([i, key, 0, 0])[0]) - 1.0
}

/// Floats in [−1, 1).
pub fn floats(n: usize, key: u32) -> Contents {
    floats_by(n, float(key))
}

/// A few floats, again and again, n times.
pub fn repeated<const N: usize>(floats: [f32; N], n: usize) -> Contents {
    floats_by(n * N, move |i| floats[i as usize % N])
}

/// Words by a function of their number.
pub fn words_by(n: usize, word: impl Fn(u32) -> u32 + 'static) -> Contents {
    Contents::by(n, move || Data::U32((0..n as u32).map(&word).collect()))
}

/// A word below `bound` for each place.
pub fn word_below(bound: u32, key: u32) -> impl Fn(u32) -> u32 {
    move |i| pcg4d([i, key, 0, 1])[0] % bound
}

/// Words below `bound`.
pub fn words(n: usize, bound: u32, key: u32) -> Contents {
    words_by(n, word_below(bound, key))
}

/// A word for each place.
pub fn word(key: u32) -> impl Fn(u32) -> u32 {
    move |i| pcg4d([i, key, 0, 2])[0]
}

/// Any words.
pub fn bits(n: usize, key: u32) -> Contents {
    words_by(n, word(key))
}

/// Random data for every buffer of a kernel whose bindings are all floats.
pub fn all_floats(kernel: &AnyKernel, lengths: &[usize]) -> Vec<Contents> {
    debug_assert!(kernel.bindings.iter().all(|b| b.element == Element::F32));
    lengths.iter().enumerate().map(|(i, n)| floats(*n, i as u32)).collect()
}

/// A case that isn't made yet.
#[derive(Clone)]
pub struct Recipe {
    /// Sizes, for the tables.
    pub label: String,
    /// The kernel.
    pub kernel: &'static AnyKernel,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written, each once.
    pub bytes: u64,
    /// Largest error allowed ([`Case::tolerance`]).
    pub tolerance: f64,
    /// Fraction of words that may differ ([`Case::words_may_differ`]).
    pub words_may_differ: f64,
    /// Whether graphs have such calls on GPUs alone.
    pub of_gpus: bool,
    make: Rc<dyn Fn() -> Case>,
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kernel.name, self.label)
    }
}

impl Recipe {
    /// What a function makes; it is called once at once, for what is known of the case.
    pub fn by(make: impl Fn() -> Case + 'static) -> Self {
        let case = make();
        Recipe {
            label: case.label,
            kernel: case.kernel,
            flops: case.flops,
            bytes: case.bytes,
            tolerance: case.tolerance,
            words_may_differ: case.words_may_differ,
            of_gpus: false,
            make: Rc::new(make),
        }
    }

    /// Sets the number of floating-point operations.
    pub fn flops(mut self, flops: u64) -> Self {
        self.flops = flops;
        self
    }

    /// Sets the tolerance.
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// A row of calls that graphs have on GPUs alone.
    pub fn of_gpus(mut self) -> Self {
        self.of_gpus = true;
        self
    }

    /// The case, with its data.
    pub fn case(&self) -> Case {
        let mut case = (self.make)();
        case.flops = self.flops;
        case.bytes = self.bytes;
        case.tolerance = self.tolerance;
        case.words_may_differ = self.words_may_differ;
        case
    }
}

impl From<Case> for Recipe {
    fn from(case: Case) -> Self {
        Recipe::by(move || case.clone())
    }
}

/// A case from its kernel, parameters and buffers. Every buffer is counted as read, and as
/// written where it can be.
pub fn case<P: bytemuck::Pod>(
    kernel: &'static Kernel<P>,
    label: impl Into<String>,
    params: &P,
    buffers: Vec<Contents>,
) -> Recipe {
    let bytes = |(fill, binding): (&Contents, &tern_shaders::Binding)| {
        let again = binding.access == Access::ReadWrite && updates(kernel, binding.name);
        4 * fill.len as u64 * if again { 2 } else { 1 }
    };
    let bytes = buffers.iter().zip(kernel.bindings).map(bytes).sum();
    let (label, params) = (label.into(), *params);
    let make = {
        let label = label.clone();
        move || Case::new(kernel, &label, &params, 1, buffers.iter().map(Contents::data).collect())
    };
    Recipe {
        label,
        kernel: kernel.any(),
        flops: 0,
        bytes,
        tolerance: 5e-5,
        words_may_differ: 0.0,
        of_gpus: false,
        make: Rc::new(make),
    }
}

/// Whether a kernel reads what it writes: in place, or adding to it.
fn updates(kernel: &AnyKernel, binding: &str) -> bool {
    match kernel.name {
        "optimizer/norm_partial" => false,
        name if name.starts_with("optimizer/") => true,
        "ternary/quantize" => binding == "residual",
        "aggregate/accumulate" | "update/rescale" => true,
        _ => false,
    }
}
