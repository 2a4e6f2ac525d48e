//! Not-a-number in, not-a-number out: a value that went wrong is never hidden by a kernel.
//!
//! What of a result depends on a value is found by changing the value in the `f64` reference;
//! with NaN in its place all of that has to be NaN, in the reference and on every device.

use tern_shaders::{Element, Variant};

use super::testing::software;
use super::{Case, cases};
use crate::{Data, Device};

/// Bindings, by the end of kernel and name, in whose place a NaN may leave numbers.
const FREE: &[(&str, &str)] = &[
    // Rows that count, counted on the device: never NaN.
    ("", "count"),
    // Compared only: which of two slopes counts, which element is the maximum.
    ("pointwise/activation_backward", "x"),
    ("reduce/rows_backward", "x"),
    ("reduce/rows_backward", "y"),
    // A NaN comes first; behind it are numbers as before.
    ("metrics/top_k", "x"),
    // Of its two parts the second is NaN.
    ("loss/softmax_cross_entropy_forward", "log_sum"),
    ("loss/softmax_cross_entropy_join", "log_sum"),
    ("loss/weighted_cross_entropy_forward", "row_sums"),
];

/// Codes have no NaN: what is not finite counts as zero (`finite_or_zero`), and trainers refuse
/// updates that aren't finite.
const CODES: &str = "ternary/";

fn free(case: &Case, binding: usize) -> bool {
    let (kernel, binding) = (case.kernel.name, case.kernel.bindings[binding].name);
    let names = |(of, name): &(&str, &str)| (of.is_empty() || *of == kernel) && *name == binding;
    kernel.starts_with(CODES) || FREE.iter().any(names)
}

/// Families whose GPU variants differ in how they compare. Of the others, which only add and
/// multiply, the variant that the device takes is tried.
const COMPARING: &[&str] = &[
    "loss",
    "metrics",
    "pointwise",
    "reduce",
    "convolution",
    "optimizer",
    "normalize",
    "attention",
];

/// Cases above this many words take too long for what they add.
const WORDS: usize = 1 << 14;

fn small_cases() -> impl Iterator<Item = Case> {
    let small = |case: &Case| case.buffers.iter().map(Data::len).sum::<usize>() <= WORDS;
    cases().into_iter().filter(small)
}

/// A binding, and an element of it.
type Place = (usize, usize);

/// A case with another number in one place.
fn with(case: &Case, (binding, at): Place, change: impl Fn(f32) -> f32) -> Case {
    let mut case = case.clone();
    if let Data::F32(values) = &mut case.buffers[binding] {
        values[at] = change(values[at]);
    }
    case
}

/// Which floats of the result depend on a place.
fn dependent(case: &Case, place: Place) -> Vec<Vec<bool>> {
    let base = case.expected().0;
    let steps: [fn(f32) -> f32; 4] =
        [|x| x + 1e3 * (1.0 + x.abs()), |x| x - 1e3 * (1.0 + x.abs()), |x| 1.5 * x + 0.1, |x| -x];
    let mut depends: Vec<Vec<bool>> = base.iter().map(|values| vec![false; values.len()]).collect();
    for step in steps {
        let moved = with(case, place, step).expected().0;
        for ((depends, moved), base) in depends.iter_mut().zip(&moved).zip(&base) {
            for ((depends, moved), base) in depends.iter_mut().zip(moved).zip(base) {
                *depends |= moved.is_finite() && base.is_finite() && moved != base;
            }
        }
    }
    depends
}

/// Places in a case's floats: one in each binding that has some, another one for each case.
fn places(case: &Case, key: usize) -> Vec<Place> {
    let floats = |(binding, data): (usize, &Data)| match data {
        Data::F32(values) if !values.is_empty() => {
            Some((binding, (key * 7919 + 13 * binding) % values.len()))
        }
        _ => None,
    };
    case.buffers.iter().enumerate().filter_map(floats).collect()
}

/// The first float of a result that is wrong.
fn fault(
    case: &Case,
    found: &[Vec<f64>],
    wrong: impl Fn(usize, usize, f64) -> bool,
) -> Option<String> {
    for (binding, values) in found.iter().enumerate() {
        if case.kernel.bindings[binding].element == Element::U32 {
            continue;
        }
        if let Some(at) = (0..values.len()).find(|at| wrong(binding, *at, values[*at])) {
            let name = case.kernel.bindings[binding].name;
            return Some(format!("{}: {name}[{at}] is {}", case.kernel.name, values[at]));
        }
    }
    None
}

/// A case with a NaN in a place, and the result of the reference.
type Tried = (Case, Place, Vec<Vec<f64>>);

/// The cases that are tried, with a NaN in each of their places, and what the reference makes of
/// it.
fn tried() -> Vec<Tried> {
    let mut tried = Vec::new();
    for (key, case) in small_cases().enumerate() {
        for place in places(&case, key) {
            let case = with(&case, place, |_| f32::NAN);
            let expected = case.expected().0;
            tried.push((case, place, expected));
        }
    }
    tried
}

#[test]
fn references_hide_none() {
    let mut faults = Vec::new();
    for (key, case) in small_cases().enumerate() {
        for place in places(&case, key) {
            let depends = dependent(&case, place);
            let found = with(&case, place, |_| f32::NAN).expected().0;
            if free(&case, place.0) {
                continue;
            }
            let hidden = |binding: usize, at: usize, value: f64| {
                !free(&case, binding)
                    && (binding, at) != place
                    && depends[binding][at]
                    && !value.is_nan()
            };
            let name = case.kernel.bindings[place.0].name;
            faults.extend(fault(&case, &found, hidden).map(|f| format!("{f}, with NaN in {name}")));
        }
    }
    faults.dedup();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn hold(device: &Device, name: &str, tried: &[Tried]) -> Vec<String> {
    let mut faults = Vec::new();
    for (case, place, expected) in tried {
        let variants: Vec<Option<&'static str>> = match name {
            "cpu" => vec![None],
            _ => {
                let params = bytemuck::cast_slice(&case.params);
                let fits = |v: &&Variant| device.takes(v, params);
                let family = case.kernel.name.split('/').next().unwrap_or("");
                match COMPARING.contains(&family) {
                    true => {
                        case.kernel.variants.iter().filter(fits).map(|v| Some(v.name)).collect()
                    }
                    false => vec![None],
                }
            }
        };
        for variant in variants {
            let case = Case { variant, ..case.clone() };
            let found = device.wait(case.on(device)).unwrap();
            let hidden = |binding: usize, at: usize, value: f64| {
                expected[binding][at].is_nan() && !value.is_nan()
            };
            let binding = case.kernel.bindings[place.0].name;
            let variant = variant.unwrap_or("");
            let told = |f| format!("{name} {variant} {f} ({}), with NaN in {binding}", case.label);
            faults.extend(fault(&case, &found, hidden).map(told));
        }
    }
    faults
}

#[test]
fn the_cpu_hides_none() {
    let faults = hold(&Device::cpu(), "cpu", &tried());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn software_vulkan_hides_none() {
    // One case of each kernel with a NaN in each binding.
    let mut count = std::collections::HashMap::new();
    let mut tried = tried();
    tried.retain(|(case, place, _)| {
        let seen = count.entry((case.kernel.name, place.0)).or_insert(0);
        *seen += 1;
        *seen <= 1
    });
    let Some((name, device)) = software().first() else { return };
    let faults = hold(device, name, &tried);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
