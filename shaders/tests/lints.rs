//! What every kernel's WGSL keeps to beyond being valid: rules whose breach no validator names
//! and some compiler or device computes wrong.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{
    BinaryOperator, Block, Expression, Function, Handle, LocalVariable, MathFunction, Module,
    ScalarKind, Statement, TypeInner,
};
use tern_shaders::{AnyKernel, Variant, kernels};

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

/// Software drivers end an invocation's loops after so many iterations. A variant with a loop whose
/// length follows from parameters or data says how many it takes (`iterations` in `kernel!`).
#[test]
fn loops_of_any_length_are_declared() {
    let (mut declared, mut missing) = (0, Vec::new());
    for kernel in kernels() {
        for variant in kernel.variants {
            let module = naga::front::wgsl::parse_str(&variant.wgsl()).unwrap();
            match open_loop(&module) {
                Some(_) if declares(kernel, variant) => declared += 1,
                Some(function) => {
                    missing.push(format!("{} ({}): in {function}", kernel.name, variant.name));
                }
                None => {}
            }
        }
    }
    assert!(
        missing.is_empty(),
        "loops whose length isn't constant, and no iterations declared: {missing:#?}"
    );
    assert!(declared > 50, "{declared} variants with such loops");
}

/// Texts whose loops are seen for what they are.
#[test]
fn lengths_of_loops_are_told_apart() {
    let open = |body: &str| {
        let text = format!(
            "struct Params {{ n: u32 }}
             @group(0) @binding(0) var<uniform> p: Params;
             @group(0) @binding(1) var<storage, read_write> x: array<u32>;
             const GROUP: u32 = 64u;
             fn walk(n: u32) -> u32 {{
                 var s = 0u;
                 for (var i = 0u; i < n; i++) {{ s += i; }}
                 return s;
             }}
             fn fixed() -> u32 {{
                 var s = 0u;
                 for (var i = GROUP; i > 0u; i /= 2u) {{ s += i; }}
                 return s;
             }}
             @compute @workgroup_size(64)
             fn main(@builtin(local_invocation_index) lane: u32) {{ {body} }}"
        );
        open_loop(&naga::front::wgsl::parse_str(&text).unwrap()).is_some()
    };
    for body in [
        "x[0] = fixed();",
        "for (var i = lane; i < 4u * GROUP; i += GROUP) { x[i] = i; }",
        "if p.n > 3u { for (var i = 0u; i < 4u; i++) { x[i] = p.n; } }",
    ] {
        assert!(!open(body), "{body}");
    }
    for body in [
        "x[0] = walk(3u);",
        "for (var i = 0u; i < p.n; i++) { x[i] = i; }",
        "let end = min(p.n, 9u); for (var i = lane; i < end; i += GROUP) { x[i] = i; }",
        "for (var i = p.n; i > 0u; i--) { x[i] = i; }",
        "var i = 0u; while x[i] != 0u { i++; }",
        "var i = 0u; loop { i++; if i == x[i] { break; } }",
        "var n = 3u; if p.n > 5u { n = p.n; } for (var i = 0u; i < n; i++) { x[i] = i; }",
        "for (var i = 0u; i < 3u; i++) { for (var j = i; j < p.n; j++) { x[j] = i; } }",
    ] {
        assert!(open(body), "{body}");
    }
}

/// Kernels' families and arrays in their variants for software devices that are indexed by a variable
/// in a loop of any length, and why it is little beside what the loop does otherwise.
const INDEXED: &[(&str, &str, &str)] = &[
    ("attention", "part", "one for each key, whose products are many"),
    ("attention", "scores", "one for each key, whose products are many"),
];

/// A driver that doesn't unroll keeps a local array in memory, and takes a load for each invocation
/// where its index varies: products were five to ten times slower so. Loops over such arrays are
/// marked `// unrolled`; variants that need features are for drivers that do unroll.
#[test]
fn arrays_in_hot_loops_are_indexed_by_constants() {
    let (mut looked_at, mut faults, mut excused) = (0, BTreeSet::new(), BTreeSet::new());
    for kernel in kernels() {
        for variant in kernel.variants.iter().filter(|v| v.software && v.features.is_empty()) {
            looked_at += 1;
            let module = naga::front::wgsl::parse_str(&variant.wgsl()).unwrap();
            let functions = module.functions.iter().map(|(_, function)| function);
            for function in functions.chain([&module.entry_points[0].function]) {
                for array in indexed(&module, function) {
                    let excuse = INDEXED.iter().find(|(family, name, _)| {
                        kernel.name.starts_with(family) && *name == array.as_str()
                    });
                    match excuse {
                        Some(excuse) => drop(excused.insert(excuse)),
                        None => drop(faults.insert(format!("{}: {array}", kernel.name))),
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(excused.len(), INDEXED.len(), "exceptions that nothing needs");
    assert!(looked_at > 30, "{looked_at} variants for software devices");
}

/// Local arrays that a function indexes by a variable in a loop whose length isn't constant.
fn indexed(module: &Module, function: &Function) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let array = |mut at: Handle<Expression>| loop {
        match &function.expressions[at] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => at = *base,
            Expression::LocalVariable(variable) => {
                let variable = &function.local_variables[*variable];
                let is_array = matches!(module.types[variable.ty].inner, TypeInner::Array { .. });
                return is_array.then(|| variable.name.clone().unwrap_or_default());
            }
            _ => return None,
        }
    };
    let mut look = |statement: &Statement| {
        if let Statement::Emit(range) = statement {
            let accessed = range.clone().filter_map(|at| match &function.expressions[at] {
                Expression::Access { base, .. } => array(*base),
                _ => None,
            });
            found.extend(accessed);
        }
    };
    each_statement(&function.body, &mut |statement| {
        if let Statement::Loop { body, continuing, break_if } = statement
            && !is_constant_loop(function, body, continuing, *break_if)
        {
            each_statement(body, &mut look);
        }
    });
    found
}

/// Whether it says iterations for any parameters: where it says nothing, for all it says none.
fn declares(kernel: &AnyKernel, variant: &Variant) -> bool {
    let values = (0..16u32).chain([64, 1024]).flat_map(|value| [(value, 0), (value, 1024)]);
    values.into_iter().any(|(first, step)| {
        // Alike, and each larger than the one before it, where what counts is a difference.
        let fields: Vec<u32> =
            (0..kernel.fields.len() as u32).map(|at| first + at * step).collect();
        let count = || (variant.iterations)(bytemuck::cast_slice(&fields), variant);
        // Some divide by a parameter, which is never 0 then.
        std::panic::catch_unwind(count).is_ok_and(|count| count > 0)
    })
}

/// A function that is called, with a loop whose length isn't constant.
fn open_loop(module: &Module) -> Option<String> {
    let main = &module.entry_points[0];
    let (mut calls, mut found) = (vec![("main".to_owned(), &main.function)], None);
    let mut seen = BTreeSet::new();
    while let (Some((name, function)), None) = (calls.pop(), &found) {
        let mut visit = |statement: &Statement| match statement {
            Statement::Call { function: called, .. } if seen.insert(called.index()) => {
                let called = &module.functions[*called];
                calls.push((called.name.clone().unwrap_or_default(), called));
            }
            Statement::Loop { body, continuing, break_if }
                if !is_constant_loop(function, body, continuing, *break_if) =>
            {
                found = Some(name.clone());
            }
            _ => {}
        };
        each_statement(&function.body, &mut visit);
    }
    found
}

fn each_statement<'a>(block: &'a Block, visit: &mut impl FnMut(&'a Statement)) {
    for statement in block {
        visit(statement);
        match statement {
            Statement::Block(block) => each_statement(block, visit),
            Statement::If { accept, reject, .. } => {
                each_statement(accept, visit);
                each_statement(reject, visit);
            }
            Statement::Switch { cases, .. } => {
                cases.iter().for_each(|case| each_statement(&case.body, visit));
            }
            Statement::Loop { body, continuing, .. } => {
                each_statement(body, visit);
                each_statement(continuing, visit);
            }
            _ => {}
        }
    }
}

/// Whether a loop begins as `for` and `while` do, by a condition under which it goes on, and that
/// is bounded by constants.
fn is_constant_loop(
    function: &Function,
    body: &Block,
    continuing: &Block,
    break_if: Option<Handle<Expression>>,
) -> bool {
    let is_break = |block: &Block| matches!(&block[..], [Statement::Break]);
    let first = body.iter().find(|statement| !matches!(statement, Statement::Emit(_)));
    let Some(Statement::If { condition, accept, reject }) = first else { return false };
    if !accept.is_empty() || !is_break(reject) || break_if.is_some() || continuing.is_empty() {
        return false;
    }
    match &function.expressions[*condition] {
        // Wherever a counter starts, it goes on to the bound at most.
        Expression::Binary {
            op: BinaryOperator::Less | BinaryOperator::LessEqual,
            left,
            right,
        } if counter(function, *left).is_some() => {
            is_constant(function, *right, &mut BTreeSet::new())
        }
        _ => is_constant(function, *condition, &mut BTreeSet::new()),
    }
}

/// The variable that an expression is the value of.
fn counter(function: &Function, value: Handle<Expression>) -> Option<Handle<LocalVariable>> {
    let Expression::Load { pointer } = &function.expressions[value] else { return None };
    match &function.expressions[*pointer] {
        Expression::LocalVariable(variable) => Some(*variable),
        _ => None,
    }
}

/// Whether a value follows from constants alone; a variable does if all that is stored in it does.
/// `seen` are the variables that are being looked at.
fn is_constant(function: &Function, value: Handle<Expression>, seen: &mut BTreeSet<usize>) -> bool {
    let from = match &function.expressions[value] {
        Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => vec![],
        Expression::Unary { expr, .. } | Expression::As { expr, .. } => vec![*expr],
        Expression::Binary { left, right, .. } => vec![*left, *right],
        Expression::Select { condition, accept, reject } => vec![*condition, *accept, *reject],
        Expression::Math { arg, arg1, arg2, arg3, .. } => {
            [Some(*arg), *arg1, *arg2, *arg3].into_iter().flatten().collect()
        }
        Expression::Load { .. } => match counter(function, value) {
            Some(variable) if seen.insert(variable.index()) => stored(function, variable),
            Some(_) => vec![],
            None => return false,
        },
        _ => return false,
    };
    from.into_iter().all(|value| is_constant(function, value, seen))
}

/// All that is stored in a variable.
fn stored(function: &Function, variable: Handle<LocalVariable>) -> Vec<Handle<Expression>> {
    let mut stored: Vec<_> = function.local_variables[variable].init.into_iter().collect();
    each_statement(&function.body, &mut |statement| {
        if let Statement::Store { pointer, value } = statement {
            let to = &function.expressions[*pointer];
            if matches!(to, Expression::LocalVariable(to) if *to == variable) {
                stored.push(*value);
            }
        }
    });
    stored
}
