//! Kernels by family: parameter structs, declarations, and reference implementations: each kernel
//! once more in plain Rust, generic over `f32` and `f64`.
//!
//! A reference implementation takes the parameter struct, the number of replicas, then the kernel's
//! buffers in binding order. Everything else is held against it, so it is kept plain and never sped
//! up.
//!
//! ```
//! use tern_shaders::{Arg, kernels};
//! // Any of them by its name: parameters as bytes, one replica, an argument a binding.
//! let scale = kernels().find(|kernel| kernel.name == "pointwise/scale").unwrap();
//! let p = tern_shaders::kernels::pointwise::Scale { n: 2, factor: 3.0, accumulate: 0 };
//! let (x, mut y) = ([1.0f64, 2.0], [0.0; 2]);
//! (scale.reference_f64)(bytemuck::bytes_of(&p), 1, &mut [Arg::Real(&x), Arg::RealMut(&mut y)]);
//! assert_eq!(y, [3.0, 6.0]);
//! ```

pub mod aggregate;
pub mod attention;
pub mod chacha;
pub mod convolution;
pub mod data;
pub mod dropout;
pub mod embedding;
pub mod fixed;
pub mod gru;
pub mod half;
pub mod loss;
pub mod lstm;
pub mod masked;
pub mod matmul;
pub mod metrics;
pub mod normalize;
pub mod optimizer;
pub mod pointwise;
pub mod random;
pub mod reduce;
pub mod roofline;
pub mod state;
pub mod ternary;
pub mod update;
