//! What a software driver counts of a kernel's loops, against what the kernel declares.
//!
//! The driver ends an invocation's loops, without a word, after 65,535 iterations together. A
//! loop put at the end of a kernel shows how many were left.

use tern_shaders::{Access, AnyKernel, Binding, Element, Variant, kernels};

use super::testing::software;
use super::{Case, cases_of};
use crate::Data;

/// Iterations after which the driver ends the loops.
const LIMIT: u32 = 65_535;

/// The variant with a loop at its end that never ends by itself, and tells its iterations.
fn probed(kernel: &AnyKernel, variant: &Variant) -> &'static AnyKernel {
    let binding = kernel.bindings.len() + 1;
    let body = variant.source.trim_end().strip_suffix('}').unwrap();
    let main = &variant.source[variant.source.find("fn main(").unwrap()..];
    assert!(!main[1..].contains("\nfn "), "{}: main is last", kernel.name);
    let source = format!(
        "{body}
    var iterations_left = 0u;
    while iterations_left <= {LIMIT}u {{
        iterations_left += 1u;
    }}
    atomicMin(&fewest_left, iterations_left);
}}
@group(0) @binding({binding}) var<storage, read_write> fewest_left: atomic<u32>;
"
    );
    let name = format!("{} {}", kernel.name, variant.name);
    let told = Binding { name: "left", element: Element::U32, access: Access::ReadWrite };
    let bindings: Vec<Binding> = kernel.bindings.iter().copied().chain([told]).collect();
    let variants = vec![Variant { source: source.leak(), ..*variant }];
    Box::leak(Box::new(AnyKernel {
        name: name.leak(),
        bindings: bindings.leak(),
        variants: variants.leak(),
        ..*kernel
    }))
}

/// Words of a case, and cases of a variant: each probe runs to the limit in every invocation.
const SMALL: usize = 1 << 13;
const ENOUGH: usize = 3;

/// Iterations of loops of constant length, which no kernel declares.
const CONSTANT: u64 = 1_000;

#[test]
fn no_kernel_takes_more_iterations_than_it_declares() {
    let Some((_, device)) = software().first() else { return };
    let mut faults = Vec::new();
    for kernel in kernels() {
        let small = |case: &Case| case.buffers.iter().map(Data::len).sum::<usize>() <= SMALL;
        let cases: Vec<Case> = cases_of(kernel).into_iter().filter(small).collect();
        for variant in kernel.variants {
            let probed = probed(kernel, variant);
            let fits = |case: &&Case| device.takes(variant, bytemuck::cast_slice(&case.params));
            for case in cases.iter().filter(fits).take(ENOUGH) {
                let declared = (variant.iterations)(bytemuck::cast_slice(&case.params), variant);
                let mut buffers = case.buffers.clone();
                buffers.push(Data::U32(vec![LIMIT]));
                let variant = Some(variant.name);
                let case = Case { kernel: probed, buffers, variant, ..case.clone() };
                let left = device.wait(case.on(device)).unwrap().last().unwrap()[0] as u64;
                let counted = u64::from(LIMIT) - left;
                if counted > declared + CONSTANT {
                    let (name, label) = (probed.name, &case.label);
                    faults.push(format!("{name}, {label}: {counted}, declared {declared}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
