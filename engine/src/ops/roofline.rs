//! Cases of the kernels that show what a device can do at most.
//!
//! ```rust
//! use tern_engine::Device;
//! use tern_engine::ops::roofline;
//!
//! # fn main() -> tern_engine::Result<()> {
//! // 4 elements with 32 chains of 8 multiply-adds, of two operations each.
//! let compute = roofline::single(4, 8);
//! assert_eq!(compute.flops, 4 * 32 * 8 * 2);
//! // 64 words that are read, and written elsewhere.
//! let copy = roofline::copy(64, 1);
//! assert_eq!(copy.bytes, 2 * 64 * 4);
//! assert_eq!(copy.check(&Device::cpu())?.error, 0.0);
//! # Ok(())
//! # }
//! ```

use tern_shaders::Kernel;
use tern_shaders::kernels::roofline::{COPY, Copy, MULTIPLY_ADD, MULTIPLY_ADD_HALF, MultiplyAdd};

use super::{Case, noise};
use crate::Data;

/// A case of `n` elements that only moves memory.
pub fn copy(n: usize, replicas: usize) -> Case {
    let buffers = vec![noise(n * replicas, 1.0, 1), Data::F32(vec![7.0; n * replicas])];
    Case::new(
        &COPY,
        format!("{n} words, {replicas} replicas"),
        &Copy { n: n as u32 },
        replicas,
        buffers,
    )
}

fn multiply_add(
    kernel: &'static Kernel<MultiplyAdd>,
    n: usize,
    rounds: usize,
    replicas: usize,
) -> Case {
    // Chains end at summand / (1 − factor) = 2.
    let p = MultiplyAdd { n: n as u32, rounds: rounds as u32, factor: 0.5, summand: 1.0 };
    let buffers = vec![noise(n * replicas, 1.0, 1), Data::F32(vec![7.0; n * replicas])];
    let label = format!("{n} elements, {rounds} rounds, {replicas} replicas");
    Case::new(kernel, label, &p, replicas, buffers).flops(p.flops() * replicas as u64)
}

/// A case of `n` elements with `rounds` multiply-adds of 32-bit numbers in each of 32 chains.
pub fn single(n: usize, rounds: usize) -> Case {
    multiply_add(&MULTIPLY_ADD, n, rounds, 1)
}

/// [`single`] with 16-bit numbers.
pub fn half(n: usize, rounds: usize) -> Case {
    // Numbers up to 8, and sums of 32 of them up to 150, in 11 bits.
    multiply_add(&MULTIPLY_ADD_HALF, n, rounds, 1).tolerance(4e-3)
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![single(1, 8), single(100, 16), half(1, 8), half(100, 16)];
    cases.push(multiply_add(&MULTIPLY_ADD, 70, 8, 3));
    cases.extend([(4, 1), (1000, 3), (8192, 1)].map(|(n, replicas)| copy(n, replicas)));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_hold_on_every_device() {
        crate::ops::testing::run_cases(&cases());
    }
}
