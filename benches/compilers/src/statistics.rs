//! What drivers call registers, spills and the rest, under one name each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::vulkan::Program;

/// What a compiler made of a variant; `None`: the driver doesn't say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Invocations of a subgroup.
    pub subgroup: Option<u64>,
    /// Registers of an invocation.
    pub registers: Option<u64>,
    /// Registers, or words, that went to memory for lack of registers.
    pub spills: Option<u64>,
    /// Bytes of memory for them, and for arrays that are indexed by what isn't constant.
    pub scratch: Option<u64>,
    /// Bytes of workgroup memory.
    pub workgroup_memory: Option<u64>,
    /// Subgroups in flight that the registers and the workgroup memory leave room for, on what the
    /// vendor counts them by: a SIMD, a core.
    pub waves: Option<u64>,
    /// Instructions.
    pub instructions: Option<u64>,
}

/// The driver's name of a statistic, in the order in which they are looked for.
const REGISTERS: &[&str] =
    &["VGPRs", "Max live registers", "Registers used", "Register count", "Number of GPRs"];
const SPILLS: &[&str] =
    &["Spilled VGPRs", "Spill Count", "STP Count", "Spills to memory", "spills"];
const SCRATCH: &[&str] = &["Scratch size", "Scratch Memory Size", "Private memory", "SLM Size"];
const WORKGROUP: &[&str] = &["LDS size", "Workgroup Memory Size", "Shared memory"];
const WAVES: &[&str] = &["Subgroups per SIMD", "Max Waves Per Core", "Max warps/SM", "threads"];
const INSTRUCTIONS: &[&str] = &["Instructions", "Instruction Count", "Instruction count", "inst"];

/// A line that Mesa's compilers write where one asks for `shaderdb`: a stage, then what was counted,
/// such as `COMPUTE shader: 120 inst, 2 threads, 0:0 spills:fills`.
pub fn of_shader_db(line: &str) -> Option<Program> {
    let (name, counts) = line.split_once(" shader: ")?;
    let mut statistics = BTreeMap::new();
    for count in counts.split(", ") {
        let (values, names) = count.trim().split_once(' ')?;
        for (value, name) in values.split(':').zip(names.split(':')) {
            statistics.insert(name.to_string(), value.parse().ok()?);
        }
    }
    Some(Program { name: name.into(), subgroup: 0, statistics })
}

impl Statistics {
    fn of(program: &Program) -> Self {
        let get = |names: &[&str]| {
            let found = names.iter().find_map(|name| program.statistics.get(*name));
            found.map(|value| *value as u64)
        };
        Statistics {
            subgroup: Some(u64::from(program.subgroup)).filter(|size| *size > 0),
            registers: get(REGISTERS),
            spills: get(SPILLS),
            scratch: get(SCRATCH),
            workgroup_memory: get(WORKGROUP),
            waves: get(WAVES),
            instructions: get(INSTRUCTIONS),
        }
    }

    /// Those of the program that runs: of several for one pipeline, which differ in their subgroups,
    /// the widest of those that spill least.
    pub fn of_all(programs: &[Program]) -> Self {
        let all = programs.iter().map(Self::of);
        all.min_by_key(|s| (s.spills, std::cmp::Reverse(s.subgroup))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(subgroup: u32, statistics: &[(&str, f64)]) -> Program {
        let statistics = statistics.iter().map(|(name, value)| (name.to_string(), *value));
        Program { name: "compute".into(), subgroup, statistics: statistics.collect() }
    }

    #[test]
    fn each_vendors_names_are_known() {
        let amd = [("VGPRs", 96.0), ("Spilled VGPRs", 0.0), ("LDS size", 16384.0)];
        let found = Statistics::of_all(&[program(32, &amd)]);
        assert_eq!((found.subgroup, found.registers, found.spills), (Some(32), Some(96), Some(0)));
        assert_eq!((found.workgroup_memory, found.waves), (Some(16384), None));
    }

    #[test]
    fn lines_for_shader_db_are_read() {
        let line = "MESA_SHADER_COMPUTE shader: 120 inst, 1.5 cycles, 2 threads, 3:4 spills:fills";
        let found = Statistics::of_all(&[of_shader_db(line).unwrap()]);
        assert_eq!((found.instructions, found.waves, found.spills), (Some(120), Some(2), Some(3)));
        for other in ["", "a shader: refused", "MESA: warning: not for the shader: none", "1 inst"]
        {
            assert_eq!(of_shader_db(other), None, "{other}");
        }
    }

    #[test]
    fn the_widest_program_without_spills_is_taken() {
        let intel = |size, spills| program(size, &[("Spill Count", spills)]);
        let found = Statistics::of_all(&[intel(8, 0.0), intel(16, 0.0), intel(32, 12.0)]);
        assert_eq!(found.subgroup, Some(16));
        assert_eq!(Statistics::of_all(&[]), Statistics::default());
    }
}
