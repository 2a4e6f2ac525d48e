//! Kernels in the languages that drivers take, written by naga with the options that wgpu has.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow};
use naga::back::{glsl, hlsl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};
use spv::Capability as C;
use tern_shaders::{Feature, Variant, kernels};

/// The entry point of every kernel.
const ENTRY: &str = "main";

/// SPIR-V as wgpu would write it for a Vulkan device.
#[derive(Clone, Copy, Debug)]
pub struct Spirv {
    /// Version, which follows from the device's version of Vulkan.
    pub version: (u8, u8),
    /// Whether bounds of buffers, divisors and loops are checked.
    pub checked: bool,
    /// Whether the device itself checks the bounds of buffers (`robustBufferAccess2`).
    pub robust: bool,
}

fn parse(wgsl: &str, capabilities: Capabilities) -> Result<(Module, ModuleInfo)> {
    let module =
        naga::front::wgsl::parse_str(wgsl).map_err(|e| anyhow!("{}", e.emit_to_string(wgsl)))?;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| anyhow!("{}", e.into_inner()))?;
    Ok((module, info))
}

/// The capabilities that wgpu allows a shader on a device with these features of Tern's.
fn capabilities(features: &[Feature]) -> Vec<C> {
    let mut all = vec![C::Shader, C::Matrix];
    for feature in features {
        all.extend_from_slice(match feature {
            Feature::Subgroup | Feature::SubgroupOf8 => &[
                C::GroupNonUniform,
                C::GroupNonUniformVote,
                C::GroupNonUniformArithmetic,
                C::GroupNonUniformBallot,
                C::GroupNonUniformShuffle,
                C::GroupNonUniformShuffleRelative,
                C::GroupNonUniformQuad,
            ],
            Feature::F16 => &[C::Float16],
            Feature::CooperativeMatrix => {
                &[C::Float16, C::CooperativeMatrixKHR, C::VulkanMemoryModel]
            }
        });
    }
    all
}

impl Spirv {
    /// The words of a variant.
    ///
    /// # Errors
    /// If naga refuses the shader.
    pub fn write(self, variant: &Variant) -> Result<Vec<u32>> {
        let (module, info) = parse(&variant.wgsl(), spv::supported_capabilities())?;
        let policy = |checked: bool| match checked {
            true => BoundsCheckPolicy::Restrict,
            false => BoundsCheckPolicy::Unchecked,
        };
        let options = spv::Options {
            lang_version: self.version,
            flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
            capabilities: Some(capabilities(variant.features).into_iter().collect()),
            bounds_check_policies: BoundsCheckPolicies {
                index: policy(self.checked),
                buffer: policy(self.checked && !self.robust),
                image_load: BoundsCheckPolicy::Unchecked,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: self.checked,
            emit_int_div_checks: self.checked,
            ..Default::default()
        };
        let pipeline =
            spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: ENTRY.into() };
        Ok(spv::write_vec(&module, &info, &options, Some(&pipeline))?)
    }
}

/// HLSL as wgpu writes it for Direct3D 12.
fn hlsl(wgsl: &str, shader_model: hlsl::ShaderModel, checked: bool) -> Result<String> {
    let (module, info) = parse(wgsl, hlsl::supported_capabilities())?;
    let options = hlsl::Options {
        shader_model,
        restrict_indexing: checked,
        force_loop_bounding: checked,
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &Default::default()).write(&module, &info, None)?;
    Ok(text)
}

/// GLSL ES of this version.
fn glsl(wgsl: &str, version: u16, checked: bool) -> Result<String> {
    let (module, info) = parse(wgsl, glsl::supported_capabilities())?;
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let policies = BoundsCheckPolicies { index: policy, buffer: policy, ..Default::default() };
    let options = glsl::Options { version: glsl::Version::new_gles(version), ..Default::default() };
    let pipeline = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: ENTRY.into(),
        multiview: None,
    };
    let mut text = String::new();
    glsl::Writer::new(&mut text, &module, &info, &options, &pipeline, policies)?.write()?;
    Ok(text)
}

/// Writes every variant, with checks and without, into a folder: `.spv` for Vulkan 1.1 (`.vk11`) and
/// 1.3 (`.vk13`), `.hlsl` for shader models 6.0 (`.sm60`) and 6.6 (`.sm66`), `.comp` of GLSL ES. What
/// naga can't express in a language (`shaders/tests/translate.rs` has the list) is left out.
///
/// # Errors
/// If a file can't be written, or naga refuses a variant in SPIR-V.
pub fn dump(folder: &Path) -> Result<usize> {
    let mut files = BTreeSet::new();
    for kernel in kernels() {
        for variant in kernel.variants {
            for checked in [false, true] {
                let suffix = if checked { ".checked" } else { "" };
                let base = format!("{}.{}{suffix}", kernel.name.replace('/', "-"), variant.name);
                let mut write = |end: &str, bytes: &[u8]| -> Result<()> {
                    let path = folder.join(format!("{base}.{end}"));
                    std::fs::write(&path, bytes).map_err(|e| anyhow!("{}: {e}", path.display()))?;
                    files.insert(path);
                    Ok(())
                };
                for (version, end) in [((1, 3), "vk11.spv"), ((1, 6), "vk13.spv")] {
                    let words = Spirv { version, checked, robust: false }.write(variant)?;
                    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
                    write(end, &bytes)?;
                }
                let wgsl = variant.wgsl();
                let models = [(hlsl::ShaderModel::V6_0, "sm60"), (hlsl::ShaderModel::V6_6, "sm66")];
                for (model, end) in models {
                    if let Ok(text) = hlsl(&wgsl, model, checked) {
                        write(&format!("{end}.hlsl"), text.as_bytes())?;
                    }
                }
                let version = if variant.features.is_empty() { 310 } else { 320 };
                if let Ok(text) = glsl(&wgsl, version, checked) {
                    write("comp", text.as_bytes())?;
                }
            }
        }
    }
    Ok(files.len())
}

#[cfg(test)]
mod tests {
    use tern_shaders::kernels::half::NT;

    use super::*;

    /// The first words of SPIR-V say what it is and its version.
    #[test]
    fn every_variant_is_written_in_the_version_asked_for() {
        for kernel in kernels() {
            for variant in kernel.variants {
                for checked in [false, true] {
                    let spirv = Spirv { version: (1, 3), checked, robust: false };
                    let words = spirv.write(variant).unwrap();
                    assert_eq!(words[..2], [0x0723_0203, 0x0001_0300], "{}", kernel.name);
                }
            }
        }
    }

    #[test]
    fn a_variant_gets_no_capability_but_for_its_features() {
        let matrices = |v: &&Variant| v.features.contains(&Feature::CooperativeMatrix);
        let with = NT.variants.iter().find(matrices).unwrap();
        let without = Variant { features: &[], ..*with };
        let spirv = Spirv { version: (1, 6), checked: false, robust: false };
        assert!(spirv.write(with).is_ok());
        let source = with.wgsl();
        let without = Variant { source: source.leak(), preludes: &[], consts: &[], ..without };
        let refused = spirv.write(&without).unwrap_err().to_string();
        assert!(refused.contains("16") || refused.contains("cooperative"), "{refused}");
    }
}
