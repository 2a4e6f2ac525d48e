//! What devices and drivers are known to do wrong: a table of whom it concerns, what is off there,
//! why, and who says so.

use wgpu::{AdapterInfo, DeviceType, Features};

/// PCI numbers of vendors.
const QUALCOMM: u32 = 0x5143;
const ARM: u32 = 0x13b5;
const IMAGINATION: u32 = 0x1010;
const INTEL: u32 = 0x8086;

/// Cooperative matrices and subgroups, which they need.
const MATRICES: Features = Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
const SUBGROUPS: Features = Features::SUBGROUP.union(MATRICES);

/// Seconds of work in a submit where a watchdog is patient, and where it isn't: in browsers and on
/// phones.
const SUBMIT: f64 = 0.050;
pub(super) const SHORT_SUBMIT: f64 = 0.010;

/// Whom an entry concerns: what is given has to agree.
#[derive(Clone, Copy, Debug)]
struct Concerned {
    vendor: Option<u32>,
    /// First and last PCI number of the devices.
    devices: &'static [[u32; 2]],
    kind: Option<DeviceType>,
}

/// What is off.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Off {
    /// Features, which are not asked for.
    Features(Features),
    /// Variants of this name, which are taken only where a call or a pin names them.
    Variant(&'static str),
    /// Loops of any length: a variant that takes more than `MAX_ITERATIONS` isn't used.
    LongLoops,
    /// Submits of more seconds of work.
    Submits(f64),
}

#[derive(Clone, Copy, Debug)]
struct Quirk {
    concerned: Concerned,
    off: Off,
    why: &'static str,
    source: &'static str,
}

const ANY: Concerned = Concerned { vendor: None, devices: &[], kind: None };

const fn of(vendor: u32) -> Concerned {
    Concerned { vendor: Some(vendor), ..ANY }
}

const PHONES: &str = "submits of much work run into the time limits of phones";
const PHONES_SOURCE: &str = "https://github.com/ggml-org/ggml/issues/1420";

const QUIRKS: &[Quirk] = &[
    Quirk {
        concerned: of(QUALCOMM),
        off: Off::Features(SUBGROUPS),
        why: "the vendor's compiler refuses reductions that others take",
        source: "https://github.com/ggml-org/llama.cpp/issues/12421",
    },
    Quirk {
        concerned: of(QUALCOMM),
        off: Off::Variant("tiled_128x128"),
        why: "it leaves two subgroups in flight of sixteen, and spills 138 words on Adreno 660",
        source: "benches/reports/compilers/adreno-660.md",
    },
    Quirk {
        concerned: of(IMAGINATION),
        off: Off::Features(SUBGROUPS),
        why: "the vendor's compiler fails on reductions by subgroups alone",
        source: "https://github.com/ggml-org/llama.cpp/pull/28341",
    },
    Quirk {
        concerned: of(ARM),
        off: Off::Features(SUBGROUPS),
        why: "the vendor's compiler computes some shaders wrong, and subgroups of 16 gain little",
        source: "https://github.com/godotengine/godot/pull/92817",
    },
    Quirk {
        concerned: of(ARM),
        off: Off::Features(Features::SHADER_F16),
        why: "who tuned for the G720 turned 16-bit floats off",
        source: "https://github.com/ggml-org/llama.cpp/pull/18493",
    },
    Quirk {
        concerned: of(ARM),
        off: Off::Variant("tiled_64x64"),
        why: "it spills 436 registers on the G610, and takes a compiler five seconds and more",
        source: "benches/reports/compilers/mali-g610.md",
    },
    Quirk {
        concerned: of(ARM),
        off: Off::Variant("tiled_128x128"),
        why: "it spills 436 registers on the G610, and takes a compiler seven seconds and more",
        source: "benches/reports/compilers/mali-g610.md",
    },
    Quirk {
        // Panther Lake and Wildcat Lake.
        concerned: Concerned { devices: &[[0xb080, 0xb0bf], [0xfd80, 0xfd81]], ..of(INTEL) },
        off: Off::Features(MATRICES),
        why: "cooperative matrices of Xe3 load the wrong tiles",
        source: "https://github.com/tracel-ai/cubecl/pull/1444",
    },
    Quirk {
        concerned: of(QUALCOMM),
        off: Off::Submits(SHORT_SUBMIT),
        why: PHONES,
        source: PHONES_SOURCE,
    },
    Quirk {
        concerned: of(ARM),
        off: Off::Submits(SHORT_SUBMIT),
        why: PHONES,
        source: PHONES_SOURCE,
    },
    Quirk {
        concerned: of(IMAGINATION),
        off: Off::Submits(SHORT_SUBMIT),
        why: "the firmware restarts under long work",
        source: "https://github.com/ggml-org/llama.cpp/issues/28214",
    },
    Quirk {
        concerned: Concerned { kind: Some(DeviceType::Cpu), ..ANY },
        off: Off::LongLoops,
        why: "llvmpipe ends an invocation's loops after 65,535 iterations, without a word",
        source: "https://github.com/ggml-org/llama.cpp/pull/13813",
    },
];

impl Concerned {
    fn is(&self, info: &AdapterInfo) -> bool {
        let device = |[first, last]: &[u32; 2]| (*first..=*last).contains(&info.device);
        self.vendor.is_none_or(|vendor| vendor == info.vendor)
            && (self.devices.is_empty() || self.devices.iter().any(device))
            && self.kind.is_none_or(|kind| kind == info.device_type)
    }
}

fn concerning(info: &AdapterInfo) -> impl Iterator<Item = &'static Quirk> {
    QUIRKS.iter().filter(|quirk| quirk.concerned.is(info))
}

/// The features among `wanted` that nothing is known against.
pub(super) fn sound(info: &AdapterInfo, wanted: Features) -> Features {
    concerning(info).fold(wanted, |features, quirk| match quirk.off {
        Off::Features(off) if features.intersects(off) => {
            log::info!(
                "{}: without {}: {} ({})",
                info.name,
                off & features,
                quirk.why,
                quirk.source
            );
            features - off
        }
        _ => features,
    })
}

/// Whether nothing is known against a variant of this name.
pub(super) fn offers(info: &AdapterInfo, variant: &'static str) -> bool {
    concerning(info).all(|quirk| quirk.off != Off::Variant(variant))
}

/// Whether the driver ends long loops.
pub(super) fn ends_loops(info: &AdapterInfo) -> bool {
    concerning(info).any(|quirk| quirk.off == Off::LongLoops)
}

/// Seconds of work that a submit may hold.
pub(super) fn submit_seconds(info: &AdapterInfo) -> f64 {
    // Software has no watchdog.
    let usual = if info.device_type == DeviceType::Cpu { 10.0 } else { SUBMIT };
    concerning(info).fold(usual, |seconds, quirk| match quirk.off {
        Off::Submits(most) => seconds.min(most),
        _ => seconds,
    })
}

#[cfg(test)]
mod tests {
    use tern_shaders::AnyKernel;

    use super::*;

    /// What an adapter would say of itself.
    fn adapter(vendor: u32, device: u32, kind: DeviceType) -> AdapterInfo {
        let mut info = AdapterInfo::new(kind, wgpu::Backend::Vulkan);
        (info.vendor, info.device) = (vendor, device);
        info
    }

    /// One that an entry is about.
    fn concerned(quirk: &Quirk) -> AdapterInfo {
        let of = &quirk.concerned;
        let device = of.devices.first().map_or(0, |[first, _]| *first);
        let kind = of.kind.unwrap_or(DeviceType::IntegratedGpu);
        adapter(of.vendor.unwrap_or(0x1002), device, kind)
    }

    #[test]
    fn what_an_entry_takes_away_is_off_on_its_devices_alone() {
        // AMD's, about which there is no entry.
        let other = adapter(0x1002, 0x744c, DeviceType::DiscreteGpu);
        for quirk in QUIRKS {
            let info = concerned(quirk);
            assert!(quirk.concerned.is(&info) && !quirk.concerned.is(&other), "{quirk:?}");
            match quirk.off {
                Off::Features(off) => {
                    assert!(!sound(&info, Features::all()).intersects(off), "{quirk:?}");
                    assert!(sound(&other, Features::all()).contains(off), "{quirk:?}");
                }
                Off::Variant(name) => {
                    assert!(!offers(&info, name) && offers(&other, name), "{quirk:?}");
                    let named = |k: &AnyKernel| k.variants.iter().any(|v| v.name == name);
                    assert!(tern_shaders::kernels().any(named), "{quirk:?}");
                }
                Off::LongLoops => assert!(ends_loops(&info) && !ends_loops(&other), "{quirk:?}"),
                Off::Submits(most) => {
                    assert!(submit_seconds(&info) <= most, "{quirk:?}");
                    assert!(submit_seconds(&other) > most, "{quirk:?}");
                }
            }
        }
    }

    #[test]
    fn every_entry_says_why_and_where_that_is_from() {
        for quirk in QUIRKS {
            assert!(quirk.why.len() > 10, "{quirk:?}");
            let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
            let kept = std::path::Path::new(ours).join(quirk.source).is_file();
            assert!(quirk.source.starts_with("https://") || kept, "{quirk:?}");
        }
    }

    #[test]
    fn devices_are_told_apart_by_their_numbers() {
        let intel = |device| adapter(INTEL, device, DeviceType::IntegratedGpu);
        // Panther Lake, and Lunar Lake before it.
        assert!(!sound(&intel(0xb0a0), Features::all()).contains(MATRICES));
        assert!(sound(&intel(0xb0a0), Features::all()).contains(Features::SUBGROUP));
        assert!(sound(&intel(0x64a0), Features::all()).contains(MATRICES));
        // A driver in software has all features, no watchdog, and loops that end.
        let software = adapter(0x10005, 0, DeviceType::Cpu);
        assert_eq!(sound(&software, Features::all()), Features::all());
        assert!(ends_loops(&software) && submit_seconds(&software) >= 10.0);
    }
}
