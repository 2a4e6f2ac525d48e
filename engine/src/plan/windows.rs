//! Models whose flat vectors are larger than a binding may be: each call binds the part that it uses.
//!
//! Kernels find a parameter by its offset within what is bound. A binding that begins later, at a
//! multiple of the parameters' alignment, is one with smaller offsets; replicas of such a model are computed
//! one after the other.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::graph::{Operand, Recorded};
use crate::{ALIGNMENT, Error, Parameters, Result};

/// By call and argument, the words of the flat vector that are bound.
pub(super) type Windows = BTreeMap<(usize, usize), Range<usize>>;

/// The windows of calls, whose parameters count from these on. `limit` are words of a binding; a model that
/// fits has none.
pub(super) fn windows(
    parameters: &Parameters,
    limit: usize,
    calls: &mut [Recorded],
) -> Result<Windows> {
    let mut windows = Windows::new();
    if parameters.words() <= limit {
        return Ok(windows);
    }
    for (at, call) in calls.iter_mut().enumerate() {
        // A field counts from one window on, whichever arguments share it.
        let mut moved: BTreeMap<usize, usize> = BTreeMap::new();
        for i in 0..call.args.len() {
            if !matches!(call.args[i], Operand::Flat(_)) {
                continue;
            }
            let fields = fields(call, i);
            let Some(window) = window(parameters, call, &fields) else {
                let what = format!("fields of {}", call.label);
                let expected = "one that ends in `offset`: the model is larger than a binding, and a \
                                call binds the part where it looks";
                return Err(Error::value(what, "none that says where", expected));
            };
            if window.len() > limit {
                let what = format!("what {} reads of the model", call.label);
                let [needed, available] = [window.len(), limit].map(|words| 4 * words as u64);
                return Err(Error::OutOfMemory { what, needed, available });
            }
            moved.extend(fields.iter().map(|field| (*field, window.start)));
            windows.insert((at, i), window);
        }
        for (field, start) in moved {
            call.params[field] -= start as u32;
        }
    }
    Ok(windows)
}

/// The fields of a call's parameters that say where in an argument to look: the one that has its name, or
/// else all that have none of another's.
fn fields(call: &Recorded, argument: usize) -> Vec<usize> {
    let kernel = call.kernel;
    let of = |name: &str| {
        let field = format!("{name}_offset");
        kernel.fields.iter().position(|(known, _)| *known == field)
    };
    if let Some(own) = kernel.bindings.get(argument).and_then(|binding| of(binding.name)) {
        return vec![own];
    }
    let named: Vec<usize> = kernel.bindings.iter().filter_map(|b| of(b.name)).collect();
    let is_offset = |name: &str| name == "offset" || name.ends_with("_offset");
    let words = kernel.fields.iter().enumerate().filter(|(_, (_, element))| *element == "u32");
    let places = words.filter(|(at, (name, _))| is_offset(name) && !named.contains(at));
    places.map(|(at, _)| at).collect()
}

/// What is bound so that some offsets are in it, each with its parameter, or with as many words as a call
/// of a range counts; `None` without offsets.
fn window(parameters: &Parameters, call: &Recorded, fields: &[usize]) -> Option<Range<usize>> {
    let kernel = call.kernel;
    let count = |field: usize| match kernel.fields[field].0 {
        "offset" => kernel.fields.iter().position(|(name, _)| *name == "n"),
        _ => None,
    };
    let parts = fields.iter().map(|field| {
        let first = call.params[*field] as usize;
        let within = |p: &&crate::Param| (p.offset..p.offset + p.padded()).contains(&first);
        let parameter = parameters.iter().find(within);
        let end = parameter.map_or(first + 1, |p| p.offset + p.padded());
        first..end.max(first + count(*field).map_or(0, |n| call.params[n] as usize))
    });
    let Range { start, end } = parts.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))?;
    let end = end.next_multiple_of(ALIGNMENT).min(parameters.words());
    Some(start / ALIGNMENT * ALIGNMENT..end)
}

#[cfg(test)]
mod tests {
    use tern_shaders::kernels::pointwise::{SCALE, Scale};

    use super::*;
    use crate::{Flat, Init, device};

    fn call(args: Vec<Operand>) -> Recorded {
        let params = device::words(&Scale { n: 64, factor: 2.0, accumulate: 0 });
        Recorded { kernel: SCALE.any(), label: "own".into(), params, args, items: 1 }
    }

    #[test]
    fn a_kernel_that_does_not_say_where_it_looks_is_refused() {
        let mut parameters = Parameters::new();
        for name in ["a", "b", "c"] {
            parameters.add(name, &[64], Init::Zeros).unwrap();
        }
        let flats = [Flat::Parameters, Flat::Gradients].map(Operand::Flat).to_vec();
        let mut calls = [call(flats)];
        assert!(windows(&parameters, 192, &mut calls).unwrap().is_empty());
        let told = windows(&parameters, 128, &mut calls).unwrap_err().to_string();
        assert!(told.contains("fields of own") && told.contains("`offset`"), "{told}");
        let mut elsewhere = [call(vec![Operand::State, Operand::Ring])];
        assert!(windows(&parameters, 128, &mut elsewhere).unwrap().is_empty());
    }
}
