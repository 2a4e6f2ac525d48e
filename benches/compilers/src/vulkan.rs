//! Pipelines made by a Vulkan driver alone. Nothing is submitted and no memory is mapped, so that a
//! driver without its hardware will do, which wgpu can't open.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use ash::vk;
use serde::{Deserialize, Serialize};
use tern_shaders::{AnyKernel, Feature, Variant};

use super::languages::Spirv;

/// A driver with its device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Name of the device.
    pub name: String,
    /// Driver and version.
    pub driver: String,
    /// Vulkan's version.
    pub api: String,
    /// PCI number of the vendor.
    pub vendor: u32,
    /// Smallest and largest subgroup.
    pub subgroups: [u32; 2],
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Features of the device that kernels ask for, by the names that they have there.
    pub features: Vec<String>,
}

/// What a driver says of a pipeline: statistics by name, of each program that it is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Name, such as `SIMD16 compute shader`.
    pub name: String,
    /// Invocations of a subgroup.
    pub subgroup: u32,
    /// Statistics.
    pub statistics: BTreeMap<String, f64>,
}

/// A pipeline that the driver made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Seconds that the driver took.
    pub seconds: f64,
    /// What it is made of.
    pub programs: Vec<Program>,
}

fn text(name: &[c_char]) -> String {
    // SAFETY: the bytes outlive the call; what Vulkan fills in ends with a zero.
    let bytes: &[u8] = unsafe { std::slice::from_raw_parts(name.as_ptr().cast(), name.len()) };
    CStr::from_bytes_until_nul(bytes).unwrap_or_default().to_string_lossy().into_owned()
}

/// A device of a driver, opened.
pub struct Driver {
    /// What it says of itself.
    pub about: About,
    instance: ash::Instance,
    device: ash::Device,
    executables: Option<ash::khr::pipeline_executable_properties::Device>,
    features: Vec<Feature>,
    spirv: (u8, u8),
    robust: bool,
    varying: bool,
    // The library has to outlive what was loaded from it.
    _entry: ash::Entry,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // SAFETY: pipelines and what they are made of are gone when `compile` returns; nothing runs.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// Extensions that are asked for where there are any.
const EXTENSIONS: [&CStr; 7] = [
    ash::khr::pipeline_executable_properties::NAME,
    ash::ext::robustness2::NAME,
    ash::khr::cooperative_matrix::NAME,
    ash::khr::shader_float16_int8::NAME,
    ash::khr::_16bit_storage::NAME,
    ash::ext::subgroup_size_control::NAME,
    ash::khr::vulkan_memory_model::NAME,
];

impl Driver {
    /// Opens the first device that the loader has: `VK_DRIVER_FILES` names the driver.
    ///
    /// # Errors
    /// If there is no loader, no device, or one that can't be opened.
    pub fn open() -> Result<Self> {
        // SAFETY: the loader is the system's own library.
        let entry = unsafe { ash::Entry::load() }.context("Vulkan's loader")?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: all that `create` points to is alive; so it is with every call below.
        let instance = unsafe { entry.create_instance(&create, None) }.context("an instance")?;
        // SAFETY: as above.
        let found = unsafe { instance.enumerate_physical_devices() }.context("devices")?;
        let physical = *found.first().context("no device: VK_DRIVER_FILES names a driver's")?;

        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut subgroup = vk::PhysicalDeviceSubgroupProperties::default();
        let mut sizes = vk::PhysicalDeviceSubgroupSizeControlProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default()
            .push_next(&mut driver)
            .push_next(&mut subgroup)
            .push_next(&mut sizes);
        // SAFETY: as above.
        unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
        let properties = properties.properties;
        // SAFETY: as above.
        let offered = unsafe { instance.enumerate_device_extension_properties(physical) }?;
        let offered: Vec<String> = offered.iter().map(|e| text(&e.extension_name)).collect();
        let has = |name: &CStr| offered.iter().any(|o| o.as_bytes() == name.to_bytes());

        let mut half = vk::PhysicalDeviceShaderFloat16Int8Features::default();
        let mut storage = vk::PhysicalDevice16BitStorageFeatures::default();
        let mut control = vk::PhysicalDeviceSubgroupSizeControlFeatures::default();
        let mut model = vk::PhysicalDeviceVulkanMemoryModelFeatures::default();
        let mut statistics = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
        let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
        let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
        let mut features = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut half)
            .push_next(&mut storage)
            .push_next(&mut control)
            .push_next(&mut model)
            .push_next(&mut statistics)
            .push_next(&mut robust)
            .push_next(&mut matrices);
        // SAFETY: as above; drivers leave structures alone that they don't know.
        unsafe { instance.get_physical_device_features2(physical, &mut features) };
        let core = features.features;

        let enabled: Vec<*const c_char> =
            EXTENSIONS.iter().filter(|name| has(name)).map(|name| name.as_ptr()).collect();
        let queue = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let wanted = vk::PhysicalDeviceFeatures::default()
            .robust_buffer_access(core.robust_buffer_access == vk::TRUE);
        let is_half =
            half.shader_float16 == vk::TRUE && storage.storage_buffer16_bit_access == vk::TRUE;
        let is_matrix = matrices.cooperative_matrix == vk::TRUE && is_half;
        let is_robust = robust.robust_buffer_access2 == vk::TRUE;
        let is_told = statistics.pipeline_executable_info == vk::TRUE;
        let is_varying = control.subgroup_size_control == vk::TRUE;
        let mut half = vk::PhysicalDeviceShaderFloat16Int8Features::default()
            .shader_float16(half.shader_float16 == vk::TRUE);
        let mut storage = vk::PhysicalDevice16BitStorageFeatures::default()
            .storage_buffer16_bit_access(storage.storage_buffer16_bit_access == vk::TRUE);
        let mut control = vk::PhysicalDeviceSubgroupSizeControlFeatures::default()
            .subgroup_size_control(is_varying)
            .compute_full_subgroups(control.compute_full_subgroups == vk::TRUE);
        let mut model = vk::PhysicalDeviceVulkanMemoryModelFeatures::default()
            .vulkan_memory_model(model.vulkan_memory_model == vk::TRUE);
        let mut statistics = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
            .pipeline_executable_info(is_told);
        let mut robust =
            vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(is_robust);
        let mut matrices =
            vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(is_matrix);
        let mut create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queue)
            .enabled_extension_names(&enabled)
            .enabled_features(&wanted)
            .push_next(&mut half)
            .push_next(&mut storage)
            .push_next(&mut control)
            .push_next(&mut model);
        if is_told {
            create = create.push_next(&mut statistics);
        }
        if has(ash::ext::robustness2::NAME) {
            create = create.push_next(&mut robust);
        }
        if is_matrix {
            create = create.push_next(&mut matrices);
        }
        // SAFETY: as above.
        let device = unsafe { instance.create_device(physical, &create, None) }
            .context("opening the device")?;

        use vk::SubgroupFeatureFlags as Ops;
        let needed = Ops::BASIC
            | Ops::VOTE
            | Ops::ARITHMETIC
            | Ops::BALLOT
            | Ops::SHUFFLE
            | Ops::SHUFFLE_RELATIVE
            | Ops::QUAD;
        let subgroups = match sizes.max_subgroup_size {
            0 => [subgroup.subgroup_size; 2],
            _ => [sizes.min_subgroup_size, sizes.max_subgroup_size],
        };
        let is_grouped = is_varying && subgroup.supported_operations.contains(needed);
        let features = [
            (Feature::Subgroup, is_grouped),
            (Feature::SubgroupOf8, is_grouped && subgroups[0] >= 8),
            (Feature::F16, is_half),
            (Feature::CooperativeMatrix, is_matrix && squares(&entry, &instance, physical)),
        ];
        let features: Vec<Feature> = features.iter().filter(|f| f.1).map(|f| f.0).collect();
        let version = properties.api_version;
        let (major, minor) = (vk::api_version_major(version), vk::api_version_minor(version));
        let about = About {
            name: text(&properties.device_name).trim().into(),
            driver: format!("{} {}", text(&driver.driver_name), text(&driver.driver_info)),
            api: format!("{major}.{minor}.{}", vk::api_version_patch(version)),
            vendor: properties.vendor_id,
            subgroups,
            workgroup_memory: properties.limits.max_compute_shared_memory_size,
            features: features.iter().map(|f| format!("{f:?}")).collect(),
        };
        let executables = is_told
            .then(|| ash::khr::pipeline_executable_properties::Device::new(&instance, &device));
        // As wgpu takes the newest that each version of Vulkan allows.
        let spirv = match (major, minor) {
            (1, 0) => (1, 0),
            (1, 1) => (1, 3),
            (1, 2) => (1, 5),
            _ => (1, 6),
        };
        Ok(Driver {
            about,
            instance,
            device,
            executables,
            features,
            spirv,
            robust: is_robust,
            varying: is_grouped,
            _entry: entry,
        })
    }

    /// Whether the device has what a variant needs.
    pub fn supports(&self, variant: &Variant) -> bool {
        variant.features.iter().all(|feature| self.features.contains(feature))
    }

    /// Has the driver make the pipeline of a variant as wgpu would ask for it.
    ///
    /// # Errors
    /// If naga or the driver refuses.
    pub fn compile(
        &self,
        kernel: &AnyKernel,
        variant: &Variant,
        checked: bool,
    ) -> Result<Pipeline> {
        let spirv = Spirv { version: self.spirv, checked, robust: self.robust };
        let code = spirv.write(variant)?;
        let binding = |at: usize, kind: vk::DescriptorType| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(at as u32)
                .descriptor_type(kind)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let mut bindings = vec![binding(0, vk::DescriptorType::UNIFORM_BUFFER)];
        bindings.extend(
            (1..=kernel.bindings.len()).map(|at| binding(at, vk::DescriptorType::STORAGE_BUFFER)),
        );
        let device = &self.device;
        let module = vk::ShaderModuleCreateInfo::default().code(&code);
        let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: what the structures point to is alive, and naga's SPIR-V is valid; each object is
        // destroyed once, after its last use.
        unsafe {
            let module = device.create_shader_module(&module, None)?;
            let set = device.create_descriptor_set_layout(&set, None)?;
            let sets = [set];
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = device.create_pipeline_layout(&layout, None)?;
            let made = self.pipeline(module, layout);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(set, None);
            device.destroy_shader_module(module, None);
            made
        }
    }

    /// # Safety
    /// The module and the layout are the device's, alive, and go together.
    unsafe fn pipeline(
        &self,
        module: vk::ShaderModule,
        layout: vk::PipelineLayout,
    ) -> Result<Pipeline> {
        let mut stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        if self.varying {
            stage = stage.flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE);
        }
        let mut create = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout);
        if self.executables.is_some() {
            create = create.flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR);
        }
        let begin = Instant::now();
        // SAFETY: as the caller promises.
        let made = unsafe {
            self.device.create_compute_pipelines(vk::PipelineCache::null(), &[create], None)
        };
        let seconds = begin.elapsed().as_secs_f64();
        let pipelines = made.map_err(|(_, e)| anyhow!("the driver refuses it: {e}"))?;
        let [pipeline] = pipelines[..] else { bail!("{} pipelines for one", pipelines.len()) };
        let programs = self.programs(pipeline);
        // SAFETY: it was just made, and nothing has it.
        unsafe { self.device.destroy_pipeline(pipeline, None) };
        Ok(Pipeline { seconds, programs: programs? })
    }

    fn programs(&self, pipeline: vk::Pipeline) -> Result<Vec<Program>> {
        let Some(executables) = &self.executables else { return Ok(Vec::new()) };
        let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline is alive, and was made with its statistics.
        let all = unsafe { executables.get_pipeline_executable_properties(&info) }?;
        let mut programs = Vec::new();
        for (at, program) in all.iter().enumerate() {
            let info = vk::PipelineExecutableInfoKHR::default()
                .pipeline(pipeline)
                .executable_index(at as u32);
            // SAFETY: as above, and there is a program of this number.
            let found = unsafe { executables.get_pipeline_executable_statistics(&info) }?;
            use vk::PipelineExecutableStatisticFormatKHR as Format;
            // SAFETY: the format says which member was written.
            let value = |s: &vk::PipelineExecutableStatisticKHR<'_>| unsafe {
                match s.format {
                    Format::FLOAT64 => s.value.f64,
                    Format::INT64 => s.value.i64 as f64,
                    Format::BOOL32 => f64::from(s.value.b32),
                    _ => s.value.u64 as f64,
                }
            };
            programs.push(Program {
                name: text(&program.name),
                subgroup: program.subgroup_size,
                statistics: found.iter().map(|s| (text(&s.name), value(s))).collect(),
            });
        }
        Ok(programs)
    }
}

/// Whether the device multiplies the cooperative matrices that kernels use: 16 × 16 halves, with sums
/// of 32 bits.
fn squares(entry: &ash::Entry, instance: &ash::Instance, device: vk::PhysicalDevice) -> bool {
    let matrices = ash::khr::cooperative_matrix::Instance::new(entry, instance);
    // SAFETY: the device has the extension.
    let all = unsafe { matrices.get_physical_device_cooperative_matrix_properties(device) };
    use vk::ComponentTypeKHR as T;
    all.unwrap_or_default().iter().any(|m| {
        [m.m_size, m.n_size, m.k_size] == [16; 3]
            && [m.a_type, m.b_type] == [T::FLOAT16; 2]
            && [m.c_type, m.result_type] == [T::FLOAT32; 2]
    })
}
