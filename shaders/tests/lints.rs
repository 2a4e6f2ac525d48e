//! What every kernel's WGSL keeps to beyond being valid: rules whose breach no validator names
//! and some compiler or device computes wrong.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{Expression, MathFunction, ScalarKind};
use tern_shaders::kernels;

/// The shaders' folder, with a folder a family and one of preludes.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every WGSL file below it, as `folder/file.wgsl`.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(root()).unwrap() {
        let folder = folder.unwrap().path();
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "wgsl") {
                let name: PathBuf = path.strip_prefix(root()).unwrap().into();
                files.push((name.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 100, "{} files", files.len());
    files
}

/// A kernel that is written and not listed would be validated by nobody.
#[test]
fn every_file_is_a_listed_kernels_source() {
    let known: BTreeSet<&str> =
        kernels().flat_map(|kernel| kernel.variants.iter().map(|variant| variant.source)).collect();
    let preludes: BTreeSet<&str> = kernels()
        .flat_map(|kernel| kernel.variants.iter().flat_map(|v| v.preludes))
        .map(|prelude| prelude.source)
        .collect();
    for (name, text) in files() {
        let listed = match name.starts_with("preludes/") {
            true => preludes.contains(text.as_str()),
            false => known.contains(text.as_str()),
        };
        assert!(
            listed,
            "shaders/{name}: no kernel in a KERNELS list has it as a source or prelude"
        );
    }
}

/// A variable that is declared in a loop without a value is zero again in each iteration, says
/// the specification; browsers' compilers have kept the last iteration's value instead.
#[test]
fn variables_of_inner_blocks_have_an_initializer() {
    for (name, text) in files() {
        let mut depth = 0;
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let declared = code.trim_start().strip_prefix("var ");
            if let Some(declared) = declared.filter(|d| depth >= 2 && !d.contains('=')) {
                // Cooperative matrices have no value that could be written; they are loaded.
                let loaded = declared.contains("array<Right");
                assert!(loaded, "shaders/{name}:{}: {} without a value", number + 1, code.trim());
            }
            depth += code.matches('{').count();
            depth -= code.matches('}').count();
        }
    }
}

/// Kernels that may take a maximum, a minimum or a clamp of floats, which leave a NaN out on some
/// devices. Elsewhere it is a comparison that lets NaN through.
const HIDE: &[(&str, &str)] = &[
    (
        "loss/",
        "the number of rows that count, at least 1; the largest logit, whose NaN comes back in the sum",
    ),
    ("pointwise/softmax_forward", "the largest element, whose NaN comes back in the sum"),
    ("ternary/", "codes have no NaN: what is not finite counts as zero"),
    ("state/", "times and rates, not data"),
];

#[test]
fn no_kernel_hides_a_nan() {
    let mut used = BTreeSet::new();
    for kernel in kernels() {
        for variant in kernel.variants {
            let module = naga::front::wgsl::parse_str(&variant.wgsl()).unwrap();
            let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
            let info = validator.validate(&module).unwrap();
            let functions =
                module.functions.iter().map(|(handle, function)| (function, &info[handle])).chain(
                    module.entry_points.iter().map(|e| (&e.function, info.get_entry_point(0))),
                );
            for (function, info) in functions {
                for (handle, expression) in function.expressions.iter() {
                    let Expression::Math { fun, .. } = expression else { continue };
                    let scalar = info[handle].ty.inner_with(&module.types).scalar();
                    let float = scalar.is_some_and(|scalar| scalar.kind == ScalarKind::Float);
                    let hides =
                        matches!(fun, MathFunction::Max | MathFunction::Min | MathFunction::Clamp);
                    if float && hides {
                        let reason = HIDE.iter().find(|(name, _)| kernel.name.starts_with(name));
                        let (name, _) = reason.unwrap_or_else(|| {
                            panic!("{} ({}): {fun:?} of floats", kernel.name, variant.name)
                        });
                        used.insert(*name);
                    }
                }
            }
        }
    }
    let all: BTreeSet<&str> = HIDE.iter().map(|(name, _)| *name).collect();
    assert_eq!(used, all, "exceptions that nothing needs");
}
