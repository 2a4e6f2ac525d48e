//! naga validates every variant of every kernel, and its parameter struct and bindings are
//! held against the Rust declarations.

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ScalarKind, StorageAccess, TypeInner};
use tern_shaders::{Access, AnyKernel, Element, Variant, kernels};

fn each_variant(mut check: impl FnMut(&AnyKernel, &Variant, &str)) {
    for kernel in kernels() {
        for variant in kernel.variants {
            check(kernel, variant, &format!("{} ({})", kernel.name, variant.name));
        }
    }
}

fn parse(variant: &Variant, name: &str) -> naga::Module {
    let wgsl = variant.wgsl();
    let before = wgsl.lines().count() - variant.source.lines().count();
    let note = format!("{before} lines of constants and preludes stand before the file's first");
    naga::front::wgsl::parse_str(&wgsl)
        .unwrap_or_else(|e| panic!("{name} ({note}): {}", e.emit_to_string(&wgsl)))
}

#[test]
fn names_are_unique_and_match_the_folders() {
    let mut names: Vec<_> = kernels().map(|k| k.name).collect();
    names.sort_unstable();
    let n = names.len();
    names.dedup();
    assert_eq!(n, names.len(), "two kernels share a name");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in names {
        let family = name.split('/').next().unwrap();
        assert!(root.join(family).is_dir(), "{name}: no folder shaders/{family}");
    }
}

#[test]
fn every_variant_validates() {
    each_variant(|_, variant, name| {
        let module = parse(variant, name);
        Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&variant.wgsl())));
        assert!(
            module.entry_points.iter().any(|e| e.name == "main"),
            "{name}: no entry point main"
        );
    });
}

#[test]
fn parameters_and_bindings_match_the_rust_declarations() {
    each_variant(|kernel, variant, name| {
        let module = parse(variant, name);
        let mut seen = vec![false; kernel.bindings.len() + 1];
        for (_, global) in module.global_variables.iter() {
            let Some(binding) = &global.binding else { continue };
            assert_eq!(binding.group, 0, "{name}: group {}", binding.group);
            let slot = binding.binding as usize;
            assert!(slot < seen.len(), "{name}: binding {slot} is not declared in Rust");
            seen[slot] = true;
            let inner = &module.types[global.ty].inner;
            if slot == 0 {
                assert_eq!(global.space, AddressSpace::Uniform, "{name}: binding 0");
                let TypeInner::Struct { members, .. } = inner else {
                    panic!("{name}: binding 0 is no struct")
                };
                let wgsl: Vec<_> = members
                    .iter()
                    .map(|m| {
                        let ty = match module.types[m.ty].inner {
                            TypeInner::Scalar(s) if s.kind == ScalarKind::Uint => "u32",
                            TypeInner::Scalar(s) if s.kind == ScalarKind::Float => "f32",
                            _ => panic!("{name}: {:?} is no u32 or f32", m.name),
                        };
                        (m.name.as_deref().unwrap(), ty, m.offset as usize)
                    })
                    .collect();
                let rust: Vec<_> = kernel
                    .fields
                    .iter()
                    .enumerate()
                    .map(|(i, (field, ty))| (*field, *ty, 4 * i))
                    .collect();
                assert!(wgsl == rust, "{name}: the WGSL has {wgsl:?}, `params!` has {rust:?}");
                continue;
            }
            let declared = &kernel.bindings[slot - 1];
            assert_eq!(global.name.as_deref(), Some(declared.name), "{name}: binding {slot}");
            let AddressSpace::Storage { access } = global.space else {
                panic!("{name}: binding {slot} is no storage buffer")
            };
            let writes = access.contains(StorageAccess::STORE);
            let written = declared.access == Access::ReadWrite;
            assert!(
                writes == written,
                "{name}: {}: the WGSL {} it, `kernel!` says {}",
                declared.name,
                if writes { "writes" } else { "reads" },
                if written { "write" } else { "read" },
            );
            let mut element = inner;
            while let TypeInner::Array { base, .. } = element {
                element = &module.types[*base].inner;
            }
            let kind = match element {
                // Two halves are a word.
                TypeInner::Scalar(s) | TypeInner::Vector { scalar: s, .. } if s.width == 2 => {
                    ScalarKind::Uint
                }
                TypeInner::Scalar(s) | TypeInner::Vector { scalar: s, .. } => s.kind,
                TypeInner::Atomic(s) => s.kind,
                other => panic!("{name}: {} holds {other:?}", declared.name),
            };
            let expected = match declared.element {
                Element::F32 => ScalarKind::Float,
                Element::U32 => ScalarKind::Uint,
            };
            assert_eq!(kind, expected, "{name}: element of {}", declared.name);
        }
        assert!(seen.iter().all(|s| *s), "{name}: a declared binding is missing in the WGSL");
    });
}

#[test]
fn defaults_of_webgpu_suffice() {
    each_variant(|kernel, variant, name| {
        assert!(kernel.bindings.len() <= 8, "{name}: more than 8 storage buffers");
        let module = parse(variant, name);
        let main = &module.entry_points[0];
        let threads: u32 = main.workgroup_size.iter().product();
        assert!(threads <= 256, "{name}: {threads} invocations a workgroup");
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let bytes: u32 = module
            .global_variables
            .iter()
            .filter(|(_, g)| g.space == AddressSpace::WorkGroup)
            .map(|(_, g)| layouter[g.ty].size)
            .sum();
        assert!(bytes <= 16_384, "{name}: {bytes} bytes of workgroup memory");
        assert_eq!(bytes > 0, variant.workgroup_memory, "{name}: the workgroup_memory flag");
    });
}
