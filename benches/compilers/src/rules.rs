//! What is asked of the variants that hardware takes by itself, and where it isn't held, with the
//! reason.

use super::sheet::{Row, Sheet};

/// Seconds that a pipeline may take a driver.
const SLOW: f64 = 1.0;

/// What a variant breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has too few registers, and keeps some in memory.
    Spills,
    /// Too few subgroups are in flight to hide how long memory takes.
    Waves,
    /// It takes the driver too long.
    Slow,
}

/// Subgroups in flight that there are to be at least, by a part of the device's name. Where a vendor's
/// driver says none, none are asked for.
const WAVES: &[(&str, u64)] = &[
    // GCN has registers for ten where an invocation takes 24 of them, and for two at 128. A product
    // keeps 64 sums.
    ("RADV POLARIS10", 2),
    ("RADV VEGA10", 2),
    ("RADV RENOIR", 2),
    // RDNA has registers for sixteen, and at least for eight.
    ("RADV NAVI", 8),
    ("RADV GFX12", 8),
    // Of sixteen.
    ("Adreno", 4),
];

/// A variant that breaks a rule: parts of the device's and the kernel's name, the variant's name, why
/// it is left so.
struct Exception {
    device: &'static str,
    kernel: &'static str,
    variant: &'static str,
    faults: &'static [Fault],
    reason: &'static str,
}

const NOT_OFFERED: &str =
    "its vendor's devices aren't offered it (engine/src/device/gpu/quirks.rs)";
const FULL: &str =
    "the sums of its tile fill the registers, which are half of other Adrenos', without spills";

const WIDE: &str = "of workgroups of more than 64 invocations subgroups have 128, two of which are as many \
    invocations in flight as four of 64";

const ALONE: &str = "there is no other variant for hardware";

const EXCEPTIONS: &[Exception] = &[
    Exception {
        device: "Mali",
        kernel: "matmul/",
        variant: "tiled_64x64",
        faults: &[Fault::Spills, Fault::Slow],
        reason: NOT_OFFERED,
    },
    Exception {
        device: "Mali",
        kernel: "half/",
        variant: "tiled_64x64",
        faults: &[Fault::Spills, Fault::Slow],
        reason: NOT_OFFERED,
    },
    Exception {
        device: "Mali",
        kernel: "matmul/",
        variant: "tiled_128x128",
        faults: &[Fault::Spills, Fault::Slow],
        reason: NOT_OFFERED,
    },
    Exception {
        device: "Mali",
        kernel: "convolution/",
        variant: "tile_8x4",
        faults: &[Fault::Spills],
        reason: ALONE,
    },
    Exception {
        device: "Mali",
        kernel: "convolution/fold",
        variant: "by_4",
        faults: &[Fault::Spills],
        reason: ALONE,
    },
    Exception {
        device: "Mali",
        kernel: "attention/",
        variant: "group_64",
        faults: &[Fault::Spills],
        reason: ALONE,
    },
    Exception {
        device: "Mali",
        kernel: "attention/",
        variant: "group_128",
        faults: &[Fault::Spills],
        reason: ALONE,
    },
    Exception {
        device: "Mali",
        kernel: "gru/step_forward",
        variant: "wide",
        faults: &[Fault::Spills],
        reason: "no device has told yet whether that costs more than the scalar variant's loads, \
                 four times as many",
    },
    Exception {
        device: "Adreno (TM) 660",
        kernel: "matmul/",
        variant: "tiled_128x128",
        faults: &[Fault::Spills],
        reason: NOT_OFFERED,
    },
    Exception {
        device: "Adreno",
        kernel: "matmul/",
        variant: "tiled_128x128",
        faults: &[Fault::Waves],
        reason: NOT_OFFERED,
    },
    Exception {
        device: "Adreno (TM) 660",
        kernel: "half/bf16_nt",
        variant: "tiled_64x64",
        faults: &[Fault::Waves],
        reason: FULL,
    },
    Exception {
        device: "Adreno (TM) 660",
        kernel: "/n",
        variant: "tiled_64x64",
        faults: &[Fault::Waves],
        reason: FULL,
    },
    Exception {
        device: "Adreno (TM) 660",
        kernel: "matmul/tn",
        variant: "tiled_64x64",
        faults: &[Fault::Waves],
        reason: FULL,
    },
    Exception {
        device: "Adreno (TM) 660",
        kernel: "half/nt",
        variant: "tiled_64x64_f16",
        faults: &[Fault::Waves],
        reason: FULL,
    },
    Exception {
        device: "Adreno (TM) 6",
        kernel: "attention/",
        variant: "group_64",
        faults: &[Fault::Waves],
        reason: WIDE,
    },
    Exception {
        device: "Adreno (TM) 6",
        kernel: "attention/",
        variant: "group_128",
        faults: &[Fault::Waves],
        reason: WIDE,
    },
    Exception {
        device: "Intel",
        kernel: "masked/encode_mask",
        variant: "plain",
        faults: &[Fault::Slow],
        reason: "twenty rounds of ChaCha, which Intel's compiler takes about a second to schedule",
    },
];

impl Exception {
    fn is(&self, sheet: &Sheet, row: &Row, fault: Fault) -> bool {
        self.faults.contains(&fault)
            && sheet.about.name.contains(self.device)
            && row.kernel.contains(self.kernel)
            && row.variant == self.variant
    }
}

/// What a row breaks.
fn of_row(sheet: &Sheet, row: &Row) -> Vec<(Fault, String)> {
    let mut faults = Vec::new();
    let s = &row.statistics;
    if let Some(spills) = s.spills.filter(|n| *n > 0) {
        faults.push((Fault::Spills, format!("{spills} registers spilled")));
    }
    let asked = WAVES.iter().find(|(device, _)| sheet.about.name.contains(device));
    if let (Some((_, least)), Some(waves)) = (asked, s.waves)
        && waves < *least
    {
        faults.push((Fault::Waves, format!("{waves} subgroups in flight, at least {least}")));
    }
    if row.seconds > SLOW {
        faults.push((Fault::Slow, format!("{:.1} s to compile, at most {SLOW}", row.seconds)));
    }
    faults
}

/// What became of the rules.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is broken, and exceptions that nothing needs.
    pub broken: Vec<String>,
    /// What is broken with a reason.
    pub excepted: Vec<String>,
}

/// Holds the variants that hardware takes by itself to the rules. A `whole` sheet has all kernels, and
/// shows which exceptions nothing needs.
pub fn judge(sheet: &Sheet, whole: bool) -> Verdict {
    let mut used = vec![false; EXCEPTIONS.len()];
    let mut verdict = Verdict::default();
    for row in sheet.rows.iter().filter(|row| !row.software) {
        for (fault, text) in of_row(sheet, row) {
            let text = format!("{} ({}): {text}", row.kernel, row.variant);
            match EXCEPTIONS.iter().position(|e| e.is(sheet, row, fault)) {
                Some(at) => {
                    used[at] = true;
                    verdict.excepted.push(format!("{text}; {}", EXCEPTIONS[at].reason));
                }
                None => verdict.broken.push(text),
            }
        }
    }
    let here = |e: &Exception| sheet.about.name.contains(e.device);
    // How long a compiler takes is the machine's, too.
    let needless = EXCEPTIONS
        .iter()
        .zip(used)
        .filter(|(e, used)| whole && here(e) && !used && e.faults != [Fault::Slow]);
    verdict.broken.extend(needless.map(|(e, _)| {
        format!("{} ({}): the exception for {:?} isn't needed", e.kernel, e.variant, e.faults)
    }));
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::sheet::tests::sample;
    use super::super::statistics::Statistics;
    use super::*;

    #[test]
    fn spills_and_slow_compilers_are_found_where_hardware_takes_the_variant() {
        let spilled = Statistics { spills: Some(3), ..Default::default() };
        let found = judge(&sample(false, spilled, 1.5), false).broken;
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("3 registers spilled"), "{found:?}");
        assert!(found[1].contains("1.5 s"), "{found:?}");
        assert!(judge(&sample(true, spilled, 1.5), false).broken.is_empty());
        assert!(judge(&sample(false, Statistics::default(), 0.5), false).broken.is_empty());
    }

    #[test]
    fn exceptions_name_variants_and_reasons() {
        for e in EXCEPTIONS {
            let of = |k: &&tern_shaders::AnyKernel| k.name.contains(e.kernel);
            let named =
                |k: &tern_shaders::AnyKernel| k.variants.iter().any(|v| v.name == e.variant);
            assert!(tern_shaders::kernels().filter(of).any(named), "{} ({})", e.kernel, e.variant);
            assert!(e.reason.len() > 10, "{} ({})", e.kernel, e.variant);
        }
    }
}
