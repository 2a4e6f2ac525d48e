//! What a kernel is: WGSL sources, bindings, a parameter struct and a reference implementation.
//!
//! Conventions that every kernel keeps:
//! - group 0, binding 0 is the uniform parameter struct; storage buffers follow from
//!   binding 1 in the order of [`AnyKernel::bindings`];
//! - `workgroup_id.z` is the replica: tensors are `[R, ...]`, flat parameter buffers have
//!   a stride in the parameter struct;
//! - the text is a header of `const`s, then preludes, then the source. The one thing that is done
//!   to it: in variants for software devices loops marked `// unrolled` are written out.

use std::marker::PhantomData;
use std::ops::Deref;

use crate::Real;
use crate::unroll::unroll;

/// Element type of a storage buffer. Every element is one 32-bit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE single precision; references may hold it as `f64`.
    F32,
    /// Unsigned words: tokens, indices, packed codes, state, or two packed halves each, which a
    /// variant may declare as 16-bit floats.
    U32,
}

/// How a kernel uses a storage buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// One storage binding of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Name of the WGSL variable.
    pub name: &'static str,
    /// Element type.
    pub element: Element,
    /// Read or read-write.
    pub access: Access,
}

/// A shared piece of WGSL, put before the source of the kernels that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prelude {
    /// File name without extension.
    pub name: &'static str,
    /// WGSL text.
    pub source: &'static str,
}

/// An optional device feature that a variant needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Subgroup operations.
    Subgroup,
    /// Subgroup operations, and no subgroup of fewer than eight invocations.
    SubgroupOf8,
    /// 16-bit floats in shaders.
    F16,
    /// Cooperative matrices of 16 × 16 halves with sums of 32 bits (experimental in wgpu), and
    /// 16-bit floats.
    CooperativeMatrix,
}

/// One way to compute a kernel on a GPU. All variants of a kernel have the same bindings
/// and parameters.
pub struct Variant {
    /// Name, unique within the kernel.
    pub name: &'static str,
    /// WGSL text of the kernel, entry point `main`.
    pub source: &'static str,
    /// Preludes in the order they are put.
    pub preludes: &'static [Prelude],
    /// `const NAME: u32` lines of the generated header.
    pub consts: &'static [(&'static str, u32)],
    /// Features the device must have.
    pub features: &'static [Feature],
    /// Whether it uses workgroup memory and barriers, which are slow on software devices.
    pub workgroup_memory: bool,
    /// Whether it is for software devices: hardware takes it only where a call or a pin names it. A
    /// kernel that has one has others for all that it computes.
    pub software: bool,
    /// Whether it can compute these parameters (alignment, sizes).
    pub fits: fn(&[u8]) -> bool,
    /// Iterations of loops that one invocation takes at most for these parameters, all its loops
    /// together, where their number follows from parameters or data.
    pub iterations: fn(&[u8], &Variant) -> u64,
    /// Workgroups in x and y for these parameters; z is the replica.
    pub grid: fn(&[u8], &Variant) -> [u32; 2],
}

/// Iterations after which llvmpipe ends an invocation's loops without a word, all of them counted
/// together, less some for loops of constant length.
pub const MAX_ITERATIONS: u64 = 60_000;

impl Variant {
    /// Whether it computes these parameters right. A `software` device may end loops after
    /// [`MAX_ITERATIONS`].
    pub fn takes(&self, params: &[u8], software: bool) -> bool {
        (self.fits)(params) && !(software && (self.iterations)(params, self) > MAX_ITERATIONS)
    }

    /// The value of a header constant.
    ///
    /// # Panics
    /// If the variant has no such constant, which is an error in the kernel's definition.
    pub fn constant(&self, name: &str) -> u32 {
        self.consts
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| *v)
            .unwrap_or_else(|| panic!("variant {} has no constant {name}", self.name))
    }

    /// The complete WGSL: header, preludes, source.
    pub fn wgsl(&self) -> String {
        let mut text = String::new();
        let needs = |features: &[Feature]| self.features.iter().any(|f| features.contains(f));
        if needs(&[Feature::F16, Feature::CooperativeMatrix]) {
            text.push_str("enable f16;\n");
        }
        if needs(&[Feature::CooperativeMatrix]) {
            text.push_str("enable wgpu_cooperative_matrix;\n");
        }
        for (name, value) in self.consts {
            text.push_str(&format!("const {name}: u32 = {value}u;\n"));
        }
        for prelude in self.preludes {
            text.push_str(prelude.source);
            text.push('\n');
        }
        // Compilers for hardware unroll by their own measure.
        match self.software {
            true => text + &unroll(self.source, self.consts),
            false => text + self.source,
        }
    }
}

/// A buffer as a reference sees it.
pub enum Arg<'a, F> {
    /// Floats, read.
    Real(&'a [F]),
    /// Floats, read and written.
    RealMut(&'a mut [F]),
    /// Words, read.
    Word(&'a [u32]),
    /// Words, read and written.
    WordMut(&'a mut [u32]),
}

impl<F> Arg<'_, F> {
    /// The floats of a read binding.
    pub fn real(&self) -> &[F] {
        match self {
            Arg::Real(x) => x,
            Arg::RealMut(x) => x,
            _ => panic!("binding holds words, the reference wants floats"),
        }
    }
    /// The floats of a read-write binding.
    pub fn real_mut(&mut self) -> &mut [F] {
        match self {
            Arg::RealMut(x) => x,
            _ => panic!("binding is not read-write floats"),
        }
    }
    /// The words of a read binding.
    pub fn word(&self) -> &[u32] {
        match self {
            Arg::Word(x) => x,
            Arg::WordMut(x) => x,
            _ => panic!("binding holds floats, the reference wants words"),
        }
    }
    /// The words of a read-write binding.
    pub fn word_mut(&mut self) -> &mut [u32] {
        match self {
            Arg::WordMut(x) => x,
            _ => panic!("binding is not read-write words"),
        }
    }
}

/// A reference with its types erased: parameter bytes, number of replicas, one argument a binding.
pub type ReferenceFn<F> = fn(&[u8], usize, &mut [Arg<'_, F>]);

/// A kernel that takes parameters of type `P`: a dispatch with another struct doesn't compile. It
/// derefs to what all kernels have.
///
/// ```compile_fail,E0308
/// use tern_shaders::Kernel;
/// use tern_shaders::kernels::update::{Difference, RESCALE};
/// let kernel: &Kernel<Difference> = &RESCALE;
/// ```
pub struct Kernel<P> {
    any: AnyKernel,
    parameters: PhantomData<fn(P)>,
}

impl<P> Kernel<P> {
    /// For [`kernel!`](crate::kernel), which sees to it that `any` reads a `P`.
    #[doc(hidden)]
    pub const fn new(any: AnyKernel) -> Self {
        Kernel { any, parameters: PhantomData }
    }

    /// The kernel without the type of its parameters, as lists hold it.
    pub const fn any(&'static self) -> &'static AnyKernel {
        &self.any
    }
}

impl<P> Deref for Kernel<P> {
    type Target = AnyKernel;

    fn deref(&self) -> &AnyKernel {
        &self.any
    }
}

/// A kernel: every way to compute it, and its reference implementation.
pub struct AnyKernel {
    /// `family/name`, the same in the folder, the benches and the profiler.
    pub name: &'static str,
    /// Field names and types (`u32` or `f32`) of the parameter struct.
    pub fields: &'static [(&'static str, &'static str)],
    /// Storage bindings from binding 1 on.
    pub bindings: &'static [Binding],
    /// GPU variants, the preferred one for hardware first.
    pub variants: &'static [Variant],
    /// The reference in the device's precision.
    pub reference_f32: ReferenceFn<f32>,
    /// The reference in double precision, which devices are held against.
    pub reference_f64: ReferenceFn<f64>,
}

impl std::fmt::Debug for AnyKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}

impl AnyKernel {
    /// The reference in the number type asked for.
    pub fn reference<F: Real + Reference>(&self) -> ReferenceFn<F> {
        F::reference(self)
    }
}

/// Selects a kernel's reference by number type.
pub trait Reference: Real {
    /// The kernel's reference in this type.
    fn reference(kernel: &AnyKernel) -> ReferenceFn<Self>;
}

impl Reference for f32 {
    fn reference(kernel: &AnyKernel) -> ReferenceFn<f32> {
        kernel.reference_f32
    }
}

impl Reference for f64 {
    fn reference(kernel: &AnyKernel) -> ReferenceFn<f64> {
        kernel.reference_f64
    }
}

/// Workgroups a dimension that every WebGPU device allows.
pub const MAX_GROUPS: u32 = 65_535;

/// Grid for `n` invocations in groups of `group`, folded into two dimensions past 65,535
/// groups; the `index` prelude's `linear_index` undoes the fold.
pub fn linear_grid(n: usize, group: u32) -> [u32; 2] {
    let groups = (n as u64).div_ceil(group.into()).max(1);
    let rows = groups.div_ceil(MAX_GROUPS.into());
    [groups.min(MAX_GROUPS.into()) as u32, rows as u32]
}

/// Declares a parameter struct: `#[repr(C)]`, plain data, with its fields listed for the
/// reflection test.
#[macro_export]
macro_rules! params {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),+ }
        impl $name {
            /// Field names and types in order.
            pub const FIELDS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), stringify!($ty))),+];
        }
    };
}

/// Declares a [`Kernel`]. See ARCHITECTURE.md, "How to add a kernel".
#[macro_export]
macro_rules! kernel {
    (
        $(#[$meta:meta])*
        $id:ident = $name:literal, $params:ty;
        bindings: [$($bname:ident : $access:ident $element:ident),+ $(,)?];
        reference: $reference:path;
        variants: [$({
            name: $vname:literal,
            source: $source:literal,
            preludes: [$($prelude:ident),* $(,)?],
            consts: [$($cname:ident = $cvalue:expr),* $(,)?],
            $(features: [$($feature:ident),* $(,)?],)?
            $(workgroup_memory: $wm:literal,)?
            $(software: $software:literal,)?
            $(fits: $fits:expr,)?
            $(iterations: $iterations:expr,)?
            grid: $grid:expr $(,)?
        }),+ $(,)?];
    ) => {
        $(#[$meta])*
        pub static $id: $crate::Kernel<$params> = {
            fn reference<F: $crate::Real>(p: &[u8], replicas: usize, args: &mut [$crate::Arg<'_, F>]) {
                let p: &$params = bytemuck::from_bytes(p);
                match args {
                    [$($bname),+] => {
                        $reference(p, replicas, $($crate::__arg!($access $element $bname)),+)
                    }
                    _ => panic!("{}: {} buffers bound", $name, args.len()),
                }
            }
            const ANY: $crate::AnyKernel = $crate::AnyKernel {
                name: $name,
                fields: <$params>::FIELDS,
                bindings: &[$($crate::Binding {
                    name: stringify!($bname),
                    element: $crate::__element!($element),
                    access: $crate::__access!($access),
                }),+],
                variants: &[$($crate::Variant {
                    name: $vname,
                    source: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $source)),
                    preludes: &[$($crate::preludes::$prelude),*],
                    consts: &[$((stringify!($cname), $cvalue)),*],
                    features: &[$($($crate::Feature::$feature),*)?],
                    workgroup_memory: false $(|| $wm)?,
                    software: false $(|| $software)?,
                    fits: |_p: &[u8]| {
                        true $(&& {
                            let f: fn(&$params) -> bool = $fits;
                            f(bytemuck::from_bytes(_p))
                        })?
                    },
                    iterations: |_p: &[u8], _v: &$crate::Variant| {
                        0 $(+ {
                            let f: fn(&$params, &$crate::Variant) -> u64 = $iterations;
                            f(bytemuck::from_bytes(_p), _v)
                        })?
                    },
                    grid: |p: &[u8], v: &$crate::Variant| {
                        let f: fn(&$params, &$crate::Variant) -> [u32; 2] = $grid;
                        f(bytemuck::from_bytes(p), v)
                    },
                }),+],
                reference_f32: reference::<f32>,
                reference_f64: reference::<f64>,
            };
            $crate::Kernel::new(ANY)
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __arg {
    (read f32 $x:ident) => {
        $x.real()
    };
    (write f32 $x:ident) => {
        $x.real_mut()
    };
    (read u32 $x:ident) => {
        $x.word()
    };
    (write u32 $x:ident) => {
        $x.word_mut()
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __element {
    (f32) => {
        $crate::Element::F32
    };
    (u32) => {
        $crate::Element::U32
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __access {
    (read) => {
        $crate::Access::Read
    };
    (write) => {
        $crate::Access::ReadWrite
    };
}
