//! What the compiler made of the `Cpu` device's hot loops: vectors of the full width, nothing
//! scalar, nothing spilled. Code for AVX-512 is in the binary whatever the processor, so that
//! each set is judged everywhere. The test reads itself: it holds the engine as it was built.
//!
//! It judges what users run: with debug assertions the same source becomes other code.
//!
//! ```sh
//! cargo test --release -p tern-engine -p tern-benches --test machine_code
//! ```
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod analyzer;
mod binary;
mod loops;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use binary::{Binary, Frame, Function};
use iced_x86::Instruction;
use loops::{Counts, Does, does, has_frame, innermost};
use rules::{Form, RULES, Rule, Set};
use tern_engine::Device;

/// Vectorized code: an innermost loop, or all of a rule in a function.
struct Part<'a> {
    function: &'a Function,
    set: Set,
    counts: Counts,
    /// Calls to functions at these addresses.
    calls: Vec<u64>,
    /// The source functions at each piece of arithmetic, at each call and spill.
    frames: Vec<Vec<Frame>>,
}

/// Functions that may compute with one float after another in loops of vectorized code.
const SCALAR: &[(&str, &str)] = &[
    // The lanes of one vector, added up.
    ("cpu/vector.rs", "sum"),
];

/// Parts of the names of functions that loops of vectorized code may call: what ends the
/// program, what copies memory, and other vectorized code.
const CALLED: [&str; 6] =
    ["panic", "_fail", "drop_in_place", "mem", "vectorize", "cpu7scratch4grow"];

fn engine() -> Binary {
    // Links the kernels.
    assert!(Device::cpu().name().starts_with("Cpu"));
    // The engine's functions, and those of others that take its closures.
    let own = |symbol: &str| {
        ["tern_engine", "fearless_simd", "core", "rayon"].iter().any(|s| symbol.contains(s))
    };
    Binary::read(&std::env::current_exe().unwrap(), own)
}

/// The set that code is compiled for, as the functions say that it is inlined into.
fn set(frames: &[Vec<Frame>]) -> Option<Set> {
    let marked = |set: &Set| frames.iter().flatten().any(|f| f.name.contains(set.mark()));
    Set::ALL.into_iter().find(marked)
}

/// Whether code is a rule's for a set.
fn is_of(frames: &[Frame], rule: &Rule, set: Set) -> bool {
    let of = |f: &Frame| f.name.contains(set.mark()) && f.name.contains(rule.of);
    frames.iter().any(of) && is_within(frames, rule.within)
}

/// Whether code is inlined from all of these functions.
fn is_within(frames: &[Frame], functions: &[(&str, &str)]) -> bool {
    functions.iter().all(|(file, function)| {
        frames.iter().any(|f| f.file.ends_with(file) && f.function() == *function)
    })
}

/// All innermost loops of vectorized code.
fn loops(binary: &Binary) -> Vec<Part<'_>> {
    let mut found = Vec::new();
    for function in binary.functions() {
        let frame = has_frame(&function.code);
        for range in innermost(&function.code) {
            let instructions = &function.code[range];
            let telling = |i: &&Instruction| does(i, frame) != Does::Other;
            let frames: Vec<Vec<Frame>> =
                instructions.iter().filter(telling).map(|i| binary.frames(i.ip())).collect();
            let Some(set) = set(&frames) else { continue };
            let calls = instructions.iter().filter_map(|i| match does(i, frame) {
                Does::Call(target) => Some(target),
                _ => None,
            });
            let counts = Counts::of(instructions, frame, set.width());
            found.push(Part { function, set, counts, calls: calls.collect(), frames });
        }
    }
    found
}

/// All arithmetic of a rule for a set, function by function.
fn inlined<'a>(binary: &'a Binary, rule: &Rule, wanted: Set) -> Vec<Part<'a>> {
    let mut found = Vec::new();
    for function in binary.functions() {
        let (mut counts, mut all) = (Counts::default(), Vec::new());
        for instruction in &function.code {
            let does = does(instruction, false);
            if !matches!(does, Does::Float { .. }) {
                continue;
            }
            let frames = binary.frames(instruction.ip());
            if is_of(&frames, rule, wanted) {
                counts.add(does, wanted.width());
                all.push(frames);
            }
        }
        if !all.is_empty() {
            found.push(Part { function, set: wanted, counts, calls: Vec::new(), frames: all });
        }
    }
    found
}

impl Part<'_> {
    fn is_within(&self, functions: &[(&str, &str)]) -> bool {
        self.frames.iter().any(|frames| is_within(frames, functions))
    }

    /// Where it is: the lines of the engine's kernels.
    fn place(&self) -> String {
        let of = |f: &Frame| Some((f.file.split_once("/src/cpu/")?.1.to_string(), f.line));
        let mut lines: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for (file, line) in self.frames.iter().flatten().filter_map(of) {
            lines.entry(file).or_default().insert(line);
        }
        let lines: Vec<String> = lines
            .iter()
            .filter_map(|(file, lines)| {
                Some(format!("{file}:{}–{}", lines.first()?, lines.last()?))
            })
            .collect();
        format!("{:?}, {} in {}", self.set, lines.join(", "), self.function.symbol)
    }
}

/// What is wrong with a rule's code for a set.
fn faults(rule: &Rule, set: Set, binary: &Binary, loops: &[Part<'_>]) -> Vec<String> {
    let of_rule = |part: &&Part<'_>| part.frames.iter().any(|f| is_of(f, rule, set));
    let all = match rule.form {
        Form::Elements { .. } => inlined(binary, rule, set),
        Form::Products { .. } => Vec::new(),
    };
    let own: Vec<&Part<'_>> = match rule.form {
        // Loops that move sums or operands may use the stack.
        Form::Products { .. } => {
            loops.iter().filter(of_rule).filter(|part| part.counts.multiplies > 0).collect()
        }
        Form::Elements { .. } => all.iter().collect(),
    };
    if own.is_empty() {
        return vec![format!("{} ({set:?}): no such code", rule.kernel)];
    }
    let most = own.iter().map(|part| part.counts.multiplies).max();
    let wrong = own.iter().flat_map(|part| {
        let largest = Some(part.counts.multiplies) == most;
        let wrong = rule.form.faults(set, &part.counts, largest);
        wrong.into_iter().map(|w| format!("{}: {w}: {}", rule.kernel, part.place()))
    });
    wrong.collect()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "judges release builds")]
fn hot_code_is_vectors_of_the_full_width() {
    let binary = engine();
    let loops = loops(&binary);
    let rules = RULES.iter().flat_map(|rule| Set::ALL.map(|set| (rule, set)));
    let wrong: Vec<String> =
        rules.flat_map(|(rule, set)| faults(rule, set, &binary, &loops)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Kernels in whose innermost loops nothing is called and nothing is scalar. Those with paths for
/// rows of a few elements aren't among them yet.
const STRICT: &[&str] = &["product", "lstm/walk.rs", "chacha.rs", "masked.rs", "aggregate.rs"];

#[test]
#[cfg_attr(debug_assertions, ignore = "judges release builds")]
fn vectorized_loops_call_nothing_and_compute_nothing_scalar() {
    let binary = engine();
    let mut wrong = Vec::new();
    for part in loops(&binary) {
        if !STRICT.iter().any(|file| part.place().contains(file)) {
            continue;
        }
        // A helper that wasn't inlined is compiled for the baseline.
        let named = part.calls.iter().filter_map(|target| binary.symbol(*target));
        let may = |symbol: &&str| CALLED.iter().any(|called| symbol.contains(called));
        wrong.extend(named.filter(|s| !may(s)).map(|s| format!("calls {s}: {}", part.place())));
        if part.counts.scalar > 0 && !SCALAR.iter().any(|f| part.is_within(&[*f])) {
            wrong.push(format!("scalar arithmetic ({:?}): {}", part.counts, part.place()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
