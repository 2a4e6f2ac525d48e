//! Innermost loops, and what their instructions are.

use std::ops::Range;

use iced_x86::{Code, FlowControl, Instruction, OpKind, Register};

/// Widths of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    Scalar,
    Xmm,
    Ymm,
    Zmm,
}

/// What an instruction does, as far as the rules ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Arithmetic on 32-bit floats; whether it multiplies (an addition may be part of it).
    Float { width: Width, multiplies: bool },
    /// Reads one float from memory into a vector's lowest lane, or puts a lane in.
    Lane,
    /// Stores a vector register to the stack or loads one from there.
    Spill,
    /// Calls the function at an address; 0: one that only runs know.
    Call(u64),
    /// Something else.
    Other,
}

/// The instructions of loops that hold no other loop: from the target of a jump backward to the
/// last jump there. Code that the compiler moved out of the loop, as it does with what rarely
/// runs, is no part of it.
pub fn innermost(code: &[Instruction]) -> Vec<Range<usize>> {
    let mut loops: Vec<Range<usize>> = Vec::new();
    for (at, instruction) in code.iter().enumerate() {
        let branches = matches!(
            instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        );
        let target = instruction.near_branch_target();
        if !branches || target > instruction.ip() {
            continue;
        }
        let Ok(start) = code.binary_search_by_key(&target, Instruction::ip) else { continue };
        match loops.iter_mut().find(|l| l.start == start) {
            Some(same) => same.end = at + 1,
            None => loops.push(start..at + 1),
        }
    }
    let holds = |outer: &Range<usize>, inner: &Range<usize>| {
        outer != inner && outer.start <= inner.start && inner.end <= outer.end
    };
    let all = loops.clone();
    loops.retain(|outer| !all.iter().any(|inner| holds(outer, inner)));
    loops
}

/// Whether a function addresses its stack by the base pointer, too.
pub fn has_frame(code: &[Instruction]) -> bool {
    code.iter().take(40).any(|i| {
        matches!(i.code(), Code::Mov_r64_rm64 | Code::Mov_rm64_r64)
            && i.op0_register() == Register::RBP
            && i.op1_register() == Register::RSP
    })
}

fn is_vector(register: Register) -> bool {
    register.is_xmm() || register.is_ymm() || register.is_zmm()
}

fn width(instruction: &Instruction) -> Width {
    let registers = (0..instruction.op_count()).map(|op| instruction.op_register(op));
    registers
        .map(|r| match r {
            r if r.is_zmm() => Width::Zmm,
            r if r.is_ymm() => Width::Ymm,
            r if r.is_xmm() => Width::Xmm,
            _ => Width::Scalar,
        })
        .max()
        .unwrap_or(Width::Scalar)
}

/// What an instruction does. `frame`: whether the base pointer points to the stack.
pub fn does(instruction: &Instruction, frame: bool) -> Does {
    match instruction.flow_control() {
        FlowControl::Call => return Does::Call(instruction.near_branch_target()),
        FlowControl::IndirectCall => return Does::Call(0),
        _ => {}
    }
    let memory = (0..instruction.op_count()).any(|op| instruction.op_kind(op) == OpKind::Memory);
    let vector = (0..instruction.op_count()).any(|op| is_vector(instruction.op_register(op)));
    let on_stack = memory
        && (instruction.memory_base() == Register::RSP
            || frame && instruction.memory_base() == Register::RBP);
    if on_stack && vector {
        return Does::Spill;
    }
    let name = format!("{:?}", instruction.mnemonic()).to_lowercase();
    let name = name.strip_prefix('v').unwrap_or(&name);
    let operation = |name: &str| -> Option<bool> {
        let multiplies = ["mul", "fmadd", "fmsub", "fnmadd", "fnmsub"];
        let others = ["add", "sub", "div", "sqrt"];
        let starts = |operations: &[&str]| operations.iter().any(|o| name.starts_with(o));
        (starts(&multiplies) || starts(&others)).then(|| starts(&multiplies))
    };
    match (name.strip_suffix("ps"), name.strip_suffix("ss")) {
        (Some(packed), _) => match operation(packed) {
            Some(multiplies) => Does::Float { width: width(instruction), multiplies },
            None if packed == "insert" => Does::Lane,
            None => Does::Other,
        },
        (_, Some("mov")) if memory && is_vector(instruction.op0_register()) => Does::Lane,
        (_, Some(scalar)) => match operation(scalar) {
            Some(multiplies) => Does::Float { width: Width::Scalar, multiplies },
            None => Does::Other,
        },
        _ => Does::Other,
    }
}

/// How often a loop does what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packed arithmetic of the full width, and those of it that multiply.
    pub full: usize,
    pub multiplies: usize,
    /// Packed arithmetic of less than the full width.
    pub narrow: usize,
    /// Arithmetic on one float, loads and insertions of one, and spills of vectors.
    pub scalar: usize,
    pub lanes: usize,
    pub spills: usize,
}

impl Counts {
    /// Of some instructions, with vectors of `full` as the full width.
    pub fn of<'a>(
        instructions: impl IntoIterator<Item = &'a Instruction>,
        frame: bool,
        full: Width,
    ) -> Self {
        let mut counts = Counts::default();
        instructions.into_iter().for_each(|i| counts.add(does(i, frame), full));
        counts
    }

    /// Counts one more.
    pub fn add(&mut self, does: Does, full: Width) {
        match does {
            Does::Float { width: Width::Scalar, .. } => self.scalar += 1,
            Does::Float { width, .. } if width < full => self.narrow += 1,
            Does::Float { multiplies, .. } => {
                self.full += 1;
                self.multiplies += usize::from(multiplies);
            }
            Does::Lane => self.lanes += 1,
            Does::Spill => self.spills += 1,
            Does::Call(_) | Does::Other => {}
        }
    }
}
