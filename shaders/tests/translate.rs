//! naga writes every variant of every kernel in each language that a driver takes, so that a
//! shader that one vendor's path can't express fails here and not on a user's machine.

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};
use tern_shaders::{AnyKernel, Variant, kernels};

/// A shading language and the interface that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    /// Vulkan.
    SpirV,
    /// Metal.
    Msl,
    /// Direct3D 12.
    Hlsl,
    /// OpenGL and OpenGL ES.
    Glsl,
}

impl Language {
    /// What the writer knows of. Some writers panic on the rest, so it is refused before.
    fn capabilities(self) -> Capabilities {
        match self {
            Language::SpirV => spv::supported_capabilities(),
            Language::Msl => msl::supported_capabilities(),
            Language::Hlsl => hlsl::supported_capabilities(),
            Language::Glsl => glsl::supported_capabilities(),
        }
    }
}

const LANGUAGES: [Language; 4] = [Language::SpirV, Language::Msl, Language::Hlsl, Language::Glsl];

/// What a language can't express: (language, kernel, variant, reason). An entry that
/// translates after all, or that names no variant, fails the test.
const EXCEPTIONS: &[(Language, &str, &str, &str)] = &[
    (Language::Hlsl, "half/nt", "cooperative_128x128", NO_MATRICES),
    (Language::Glsl, "half/nt", "cooperative_128x128", NO_MATRICES),
    (Language::Glsl, "half/nt", "tiled_64x64_f16", NO_HALVES),
    (Language::Glsl, "half/nt", "tiled_32x32_f16", NO_HALVES),
    (Language::Glsl, "roofline/multiply_add_half", "f16", NO_HALVES),
];

const NO_MATRICES: &str = "no cooperative matrices";
const NO_HALVES: &str = "naga writes no 16-bit floats; adapters of this interface offer none";

/// Runs the writer. A variant without features must pass in the oldest version of the
/// language that the interface may ask for; one with features in a recent version.
fn translate(
    language: Language,
    module: &Module,
    recent: bool,
    checked: bool,
) -> Result<(), String> {
    let info = &validate(module, language.capabilities())?;
    let stage = ShaderStage::Compute;
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let policies = BoundsCheckPolicies { index: policy, buffer: policy, ..Default::default() };
    let length = match language {
        Language::SpirV => {
            let options = spv::Options {
                lang_version: if recent { (1, 6) } else { (1, 0) },
                bounds_check_policies: policies,
                force_loop_bounding: checked,
                emit_int_div_checks: checked,
                ..Default::default()
            };
            let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: "main".into() };
            spv::write_vec(module, info, &options, Some(&pipeline))
                .map_err(|e| e.to_string())?
                .len()
        }
        Language::Msl => {
            let options = msl::Options {
                lang_version: if recent { (3, 2) } else { (2, 0) },
                bounds_check_policies: policies,
                force_loop_bounding: checked,
                emit_int_div_checks: checked,
                ..Default::default()
            };
            let (text, written) = msl::write_string(module, info, &options, &Default::default())
                .map_err(|e| e.to_string())?;
            for name in written.entry_point_names {
                name.map_err(|e| e.to_string())?;
            }
            text.len()
        }
        Language::Hlsl => {
            let options = hlsl::Options {
                shader_model: if recent {
                    hlsl::ShaderModel::V6_6
                } else {
                    hlsl::ShaderModel::V5_1
                },
                restrict_indexing: checked,
                force_loop_bounding: checked,
                ..Default::default()
            };
            let mut text = String::new();
            let written = hlsl::Writer::new(&mut text, &options, &Default::default())
                .write(module, info, None)
                .map_err(|e| e.to_string())?;
            for name in written.entry_point_names {
                name.map_err(|e| e.to_string())?;
            }
            text.len()
        }
        Language::Glsl => {
            let options = glsl::Options {
                version: if recent {
                    glsl::Version::Desktop(460)
                } else {
                    glsl::Version::new_gles(310)
                },
                ..Default::default()
            };
            let pipeline = glsl::PipelineOptions {
                shader_stage: stage,
                entry_point: "main".into(),
                multiview: None,
            };
            let mut text = String::new();
            glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
                .and_then(|mut writer| writer.write())
                .map_err(|e| e.to_string())?;
            text.len()
        }
    };
    if length == 0 { Err("nothing was written".into()) } else { Ok(()) }
}

fn parse(wgsl: &str) -> Module {
    naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)))
}

fn validate(module: &Module, capabilities: Capabilities) -> Result<ModuleInfo, String> {
    Validator::new(ValidationFlags::all(), capabilities)
        .validate(module)
        .map_err(|e| e.into_inner().to_string())
}

fn excepted(language: Language, kernel: &AnyKernel, variant: &Variant) -> bool {
    EXCEPTIONS.iter().any(|(l, k, v, _)| (*l, *k, *v) == (language, kernel.name, variant.name))
}

#[test]
fn every_variant_translates_to_every_language_or_is_a_known_exception() {
    let mut wrong = Vec::new();
    for kernel in kernels() {
        for variant in kernel.variants {
            let module = parse(&variant.wgsl());
            let recent = !variant.features.is_empty();
            for language in LANGUAGES {
                let outcome = translate(language, &module, recent, false)
                    .and_then(|()| translate(language, &module, recent, true));
                let name = format!("{} ({}) in {language:?}", kernel.name, variant.name);
                match (outcome, excepted(language, kernel, variant)) {
                    (Err(e), false) => wrong.push(format!("{name}: {e}")),
                    (Ok(()), true) => wrong.push(format!("{name}: translates, drop the exception")),
                    _ => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_exception_names_a_variant_and_a_reason() {
    for (language, kernel, variant, reason) in EXCEPTIONS {
        let found =
            kernels().any(|k| k.name == *kernel && k.variants.iter().any(|v| v.name == *variant));
        assert!(found, "no variant {kernel} ({variant}), excepted in {language:?}");
        assert!(!reason.is_empty(), "{kernel} ({variant}) in {language:?}: no reason");
    }
}

/// Refusals arrive as such: GLSL has no cooperative matrices, GLSL ES no 64-bit integers.
#[test]
fn what_a_language_lacks_is_refused() {
    let wide = parse(
        "@group(0) @binding(0) var<storage, read_write> x: array<u64>;
         @compute @workgroup_size(1) fn main() { x[0] = x[0] + 1lu; }",
    );
    assert!(translate(Language::Glsl, &wide, false, false).is_err());
    assert!(translate(Language::SpirV, &wide, false, false).is_ok());
    let matrix = parse(
        "enable wgpu_cooperative_matrix;
         @group(0) @binding(0) var<storage, read_write> x: array<f32>;
         @compute @workgroup_size(8, 8) fn main() {
             let a = coopLoad<coop_mat8x8<f32, A>>(&x[0], 8u);
             let b = coopLoad<coop_mat8x8<f32, B>>(&x[64], 8u);
             let c = coopLoad<coop_mat8x8<f32, C>>(&x[128], 8u);
             coopStore(coopMultiplyAdd(a, b, c), &x[128], 8u);
         }",
    );
    for language in LANGUAGES {
        let expected = matches!(language, Language::SpirV | Language::Msl);
        let outcome = translate(language, &matrix, true, false);
        assert_eq!(outcome.is_ok(), expected, "{language:?}: {outcome:?}");
    }
}
