//! What hardware takes by itself, for any parameters and whatever its features.

use tern_shaders::{Feature, Variant, kernels};

use super::cases_of;

/// Features of hardware: none, subgroups of any size, of eight and more, 16-bit floats, all.
const FEATURES: [&[Feature]; 5] = [
    &[],
    &[Feature::Subgroup],
    &[Feature::Subgroup, Feature::SubgroupOf8],
    &[Feature::F16],
    &[Feature::Subgroup, Feature::SubgroupOf8, Feature::F16, Feature::CooperativeMatrix],
];

#[test]
fn hardware_has_a_variant_for_all_that_software_has_one_for() {
    let mut missing = Vec::new();
    let mut apart = 0;
    for kernel in kernels() {
        for case in cases_of(kernel) {
            let params = bytemuck::cast_slice(&case.params);
            for features in FEATURES {
                let takes = |v: &&Variant| {
                    v.features.iter().all(|f| features.contains(f)) && (v.fits)(params)
                };
                let all: Vec<&Variant> = kernel.variants.iter().filter(takes).collect();
                let offered = all.iter().any(|v| !v.software);
                if !offered && !all.is_empty() {
                    missing.push(format!("{}, {}, {features:?}", kernel.name, case.label));
                }
                apart += all.iter().filter(|v| v.software).count();
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(apart > 1000, "{apart} variants for software devices");
}

/// A variant for software devices uses no workgroup memory, which is what it is for.
#[test]
fn variants_for_software_come_last_and_have_no_workgroup_memory() {
    for kernel in kernels() {
        let kinds: Vec<bool> = kernel.variants.iter().map(|v| v.software).collect();
        assert!(kinds.is_sorted(), "{}: {kinds:?}", kernel.name);
        let with_memory = kernel.variants.iter().find(|v| v.software && v.workgroup_memory);
        assert!(with_memory.is_none(), "{}", kernel.name);
    }
}
