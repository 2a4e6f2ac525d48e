//! Which vectors the processor has, and which of them the kernels use.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use fearless_simd::Level;

use crate::{Error, Result};

/// Calls a function, generic over the instruction set, with the vectors in use:
/// `with_vectors!(s => f(s, x))`. The function, and all that it calls with `s`, must be
/// `#[inline(always)]`, closures too, to be compiled for them.
macro_rules! with_vectors {
    ($s:ident => $call:expr) => {
        $crate::cpu::isa::with_vectors!($crate::cpu::isa::Isa::vectors(), $s => $call)
    };
    ($vectors:expr, $s:ident => $call:expr) => {{
        use ::fearless_simd::Simd as _;
        match $vectors {
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Vectors::Avx512($s) => $s.vectorize(#[inline(always)] || $call),
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Vectors::Avx2($s) => $s.vectorize(#[inline(always)] || $call),
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::isa::Vectors::Neon($s) => $s.vectorize(#[inline(always)] || $call),
            $crate::cpu::isa::Vectors::Base($s) => $s.vectorize(#[inline(always)] || $call),
        }
    }};
}
pub(super) use with_vectors;

/// Instruction sets that the fast functions of the `Cpu` device are compiled for, the widest
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Isa {
    /// AVX-512 as of Ice Lake and Zen 4: sixteen lanes.
    Avx512 = 1,
    /// AVX2 with fused multiply-adds: eight lanes.
    Avx2 = 2,
    /// NEON: four lanes.
    Neon = 3,
    /// What every processor of the architecture has: SSE2, WebAssembly's vectors, or none.
    Base = 4,
}

/// 0, or the set that was pinned.
static PINNED: AtomicU8 = AtomicU8::new(0);

impl Isa {
    const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Base];

    /// Those that this processor has, the widest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.into_iter().filter(|isa| isa.level().is_some())
    }

    /// The one in use: the pinned one; or the one that `TERN_ISA` names, where the processor has
    /// it; or the widest.
    pub fn current() -> Isa {
        let pinned = PINNED.load(Ordering::Relaxed);
        if let Some(isa) = Self::ALL.into_iter().find(|isa| *isa as u8 == pinned) {
            return isa;
        }
        let named = std::env::var("TERN_ISA").ok().and_then(|name| name.parse().ok());
        let isa = Self::available()
            .find(|isa| Some(*isa) == named)
            .or_else(|| Self::available().next())
            .unwrap_or(Isa::Base);
        PINNED.store(isa as u8, Ordering::Relaxed);
        isa
    }

    /// Makes this process use the set from now on, on all threads: to compare sets on one
    /// machine.
    ///
    /// # Errors
    /// If the processor doesn't have it.
    pub fn pin(self) -> Result<()> {
        if self.level().is_none() {
            let available: Vec<String> = Self::available().map(|isa| isa.to_string()).collect();
            return Err(Error::Value {
                name: "instruction set".into(),
                value: self.to_string(),
                expected: format!("what this processor has: {}", available.join(", ")),
            });
        }
        PINNED.store(self as u8, Ordering::Relaxed);
        Ok(())
    }

    /// The vectors in use.
    #[inline]
    pub(super) fn vectors() -> Vectors {
        // What `current` gives is there.
        Self::current().level().unwrap_or_else(Vectors::base)
    }

    /// Its vectors, if the processor has them.
    pub(super) fn level(self) -> Option<Vectors> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Level::new().as_avx512().map(Vectors::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Level::new().as_avx2().map(Vectors::Avx2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Level::new().as_neon().map(Vectors::Neon),
            Isa::Base => Some(Vectors::base()),
            #[allow(unreachable_patterns, reason = "other architectures have other sets")]
            _ => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Base => "base",
        })
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|isa| isa.to_string() == name).ok_or_else(|| Error::Value {
            name: "instruction set".into(),
            value: format!("{name:?}"),
            expected: "avx512, avx2, neon or base".into(),
        })
    }
}

/// A proof that the processor has the vectors, which functions that use them take.
#[derive(Clone, Copy)]
pub(super) enum Vectors {
    #[cfg(target_arch = "x86_64")]
    Avx512(fearless_simd::x86::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(fearless_simd::x86::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(fearless_simd::aarch64::Neon),
    Base(Base),
}

#[cfg(target_arch = "x86_64")]
type Base = fearless_simd::x86::Sse2;
#[cfg(target_arch = "aarch64")]
type Base = fearless_simd::aarch64::Neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
type Base = fearless_simd::wasm32::WasmSimd128;
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
)))]
type Base = fearless_simd::Fallback;

impl Vectors {
    /// Lanes of a vector of 32-bit elements.
    pub(super) fn lanes(self) -> usize {
        with_vectors!(self, s => lanes_of(s))
    }

    #[allow(unreachable_patterns, reason = "each architecture has one base")]
    fn base() -> Self {
        let base: Option<Base> = match Level::baseline() {
            #[cfg(target_arch = "x86_64")]
            level => level.as_sse2(),
            #[cfg(target_arch = "aarch64")]
            level => level.as_neon(),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            level => level.as_wasm_simd128(),
            #[cfg(not(any(
                target_arch = "x86_64",
                target_arch = "aarch64",
                all(target_arch = "wasm32", target_feature = "simd128")
            )))]
            Level::Fallback(fallback) => Some(fallback),
            _ => None,
        };
        Vectors::Base(base.expect("the baseline is what every processor has"))
    }
}

#[inline(always)]
fn lanes_of<S: fearless_simd::Simd>(_: S) -> usize {
    super::vector::lanes::<S>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>().unwrap(), isa);
        }
        let error = "avx".parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("avx512, avx2, neon or base"), "{error}");
    }

    #[test]
    fn every_processor_has_a_set_and_none_has_them_all() {
        let available: Vec<Isa> = Isa::available().collect();
        assert!(available.contains(&Isa::Base) && available.contains(&Isa::current()));
        let lacking = Isa::ALL.into_iter().find(|isa| !available.contains(isa)).unwrap();
        let error = lacking.pin().unwrap_err().to_string();
        assert!(error.contains(&format!("is {lacking}, expected")), "{error}");
    }
}
