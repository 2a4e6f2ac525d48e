//! Which variant computes a kernel, measured: once for each adapter, driver and class of sizes.
//!
//! A variant that was measured to be the fastest is used instead of the first that fits, if the
//! device was opened with [`Tuning::Table`] or [`Tuning::Measure`]. The choice depends on a
//! call's parameters and never on the number of replicas, so that R models side by side still
//! give the bits of R separate runs; kept in a file, it is the same on every later run.

mod measure;
#[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "a table is read for a GPU"))]
mod table;
mod walk;

use tern_shaders::AnyKernel;
use tern_shaders::kernels::{lstm, matmul};

use crate::{Error, Result};
pub(crate) use table::Table;

/// How a device uses measured choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// Not at all: the first variant that fits.
    #[default]
    Off,
    /// The choices that Tern ships and those in the user's cache folder; nothing is measured.
    Table,
    /// The same, and what is in neither is measured when a plan is prepared, and kept.
    Measure,
}

impl std::str::FromStr for Tuning {
    type Err = Error;

    /// `off`, `table` or `measure`.
    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "off" => Ok(Tuning::Off),
            "table" => Ok(Tuning::Table),
            "measure" => Ok(Tuning::Measure),
            other => Err(Error::value("TERN_TUNE", other, "off, table or measure")),
        }
    }
}

/// Where a choice comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Measured by Tern's developers on such a device.
    Shipped,
    /// Measured on this machine by an earlier run.
    Cache,
    /// Measured by this process.
    Measured,
}

/// The variant that computes a kernel for a class of sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Kernel name.
    pub kernel: &'static str,
    /// Class of sizes, such as `512x512x512 v4`.
    pub class: String,
    /// Variant name.
    pub variant: &'static str,
    /// Where it comes from.
    pub source: Source,
    /// Seconds a call that it took, and that the variant took which would be used untuned.
    pub seconds: Option<[f64; 2]>,
}

/// Sizes that share a choice: exact ones where a few rows more or less change how well tiles
/// fit, powers of two above.
fn round(size: u32) -> u32 {
    if size <= 64 { size } else { size.checked_next_power_of_two().unwrap_or(u32::MAX) }
}

/// The class of a call's sizes; `None` for a kernel whose variants aren't measured.
pub(crate) fn class(kernel: &AnyKernel, params: &[u32]) -> Option<String> {
    let bytes: &[u8] = bytemuck::cast_slice(params);
    match kernel.name {
        "matmul/nn" | "matmul/nt" | "matmul/tn" | "half/nt" | "half/bf16_nt" => {
            let p: &matmul::Gemm = bytemuck::try_from_bytes(bytes).ok()?;
            let k = if p.splits > 1 { p.part() } else { p.k };
            let [m, n, k] = [p.m, p.n, k].map(round);
            // Whether both operands, or the right one alone, can be read four words at a time.
            let fours = |words: u32| if words.is_multiple_of(4) { "v4" } else { "words" };
            let left = fours(p.a_offset | p.a_stride | p.a_row | left_row(kernel, p));
            let right = fours(p.b_offset | p.b_stride | p.b_row | right_row(kernel, p));
            Some(format!("{m}x{n}x{k} {left} {right}"))
        }
        "lstm/step_forward" => {
            let p: &lstm::Forward = bytemuck::try_from_bytes(bytes).ok()?;
            Some(cell(p.batch, p.hidden, p.cifg))
        }
        "lstm/step_backward" => {
            let p: &lstm::Backward = bytemuck::try_from_bytes(bytes).ok()?;
            Some(cell(p.batch, p.hidden, p.cifg))
        }
        _ => None,
    }
}

/// Words of a stored row of A that are used.
fn left_row(kernel: &AnyKernel, p: &matmul::Gemm) -> u32 {
    if kernel.name.ends_with("/tn") { p.m } else { p.k }
}

/// Words of a stored row of B that are used.
fn right_row(kernel: &AnyKernel, p: &matmul::Gemm) -> u32 {
    if kernel.name.ends_with("nt") { p.k } else { p.n }
}

fn cell(batch: u32, hidden: u32, cifg: u32) -> String {
    format!("batch {} hidden {} gates {}", round(batch), round(hidden), lstm::gate_count(cifg))
}

#[cfg(test)]
mod tests;
