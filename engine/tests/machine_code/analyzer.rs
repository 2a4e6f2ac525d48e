//! The analyzer itself: it finds loops and rejects what the rules are there to reject.

use std::arch::global_asm;
use std::hint::black_box;

use super::binary::Binary;
use super::loops::{Counts, has_frame, innermost};
use super::rules::{Form, Set};

// Loops as a compiler might make them, by hand so that they stay as they are.
global_asm!(
    ".globl tern_guard_good, tern_guard_spills, tern_guard_frame, tern_guard_one_by_one",
    ".type tern_guard_good, @function",
    "tern_guard_good:",
    "2: vbroadcastss zmm2, dword ptr [rsi]",
    "vfmadd231ps zmm0, zmm2, zmmword ptr [rdi]",
    "vfmadd231ps zmm1, zmm2, zmmword ptr [rdi + 64]",
    "3: add rsi, 4",
    "dec rdx",
    "jne 3b",
    "add rdi, 128",
    "dec rcx",
    "jne 2b",
    "4: vfmadd231ps zmm0, zmm2, zmmword ptr [rdi]",
    "vfmadd231ps zmm1, zmm2, zmmword ptr [rdi + 64]",
    "dec rcx",
    "jne 4b",
    "ret",
    ".size tern_guard_good, . - tern_guard_good",
    ".type tern_guard_spills, @function",
    "tern_guard_spills:",
    "2: vmovups zmm2, zmmword ptr [rsp - 64]",
    "vfmadd231ps zmm0, zmm2, zmmword ptr [rdi]",
    "vfmadd231ps zmm1, zmm2, zmmword ptr [rdi + 64]",
    "dec rcx",
    "jne 2b",
    "ret",
    ".size tern_guard_spills, . - tern_guard_spills",
    ".type tern_guard_frame, @function",
    "tern_guard_frame:",
    "push rbp",
    "mov rbp, rsp",
    "2: vfmadd231ps zmm0, zmm2, zmmword ptr [rbp - 64]",
    "vfmadd231ps zmm1, zmm2, zmmword ptr [rdi + 64]",
    "dec rcx",
    "jne 2b",
    "pop rbp",
    "ret",
    ".size tern_guard_frame, . - tern_guard_frame",
    // What the compiler once made of the LSTM's products: weights loaded one by one.
    ".type tern_guard_one_by_one, @function",
    "tern_guard_one_by_one:",
    "2: vmovss xmm2, dword ptr [rdi]",
    "vinsertps xmm2, xmm2, dword ptr [rdi + 256], 16",
    "vfmadd231ps zmm0, zmm2, zmm3",
    "vfmadd231ps zmm1, zmm2, zmm4",
    "dec rcx",
    "jne 2b",
    "ret",
    ".size tern_guard_one_by_one, . - tern_guard_one_by_one",
);

unsafe extern "C" {
    fn tern_guard_good();
    fn tern_guard_spills();
    fn tern_guard_frame();
    fn tern_guard_one_by_one();
}

/// A sum of products that no compiler may reorder: scalar on every instruction set.
#[inline(never)]
#[unsafe(no_mangle)]
fn tern_guard_scalar(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).fold(0.0, |sum, (x, y)| sum + x * y)
}

/// The counts of every innermost loop of a function of this binary.
fn counts(symbol: &str, set: Set) -> Vec<Counts> {
    black_box([tern_guard_good, tern_guard_spills, tern_guard_frame, tern_guard_one_by_one]);
    assert_eq!(black_box(tern_guard_scalar)(&[2.0], &[3.0]), 6.0);
    let binary = Binary::read(&std::env::current_exe().unwrap(), |s| s == symbol);
    let [function] = binary.functions() else { panic!("{symbol} is no function") };
    let frame = has_frame(&function.code);
    innermost(&function.code)
        .into_iter()
        .map(|range| Counts::of(&function.code[range], frame, set.width()))
        .collect()
}

/// What the rule for products says of the last loop of a function.
fn products(symbol: &str, least: usize, set: Set) -> String {
    let counts = counts(symbol, set).pop().unwrap();
    Form::Products { least: [least; 3], base_spills: 0 }.faults(set, &counts, true).join("; ")
}

#[test]
fn a_loop_of_vectors_passes_and_too_short_a_one_does_not() {
    assert_eq!(products("tern_guard_good", 2, Set::Avx512), "");
    assert!(products("tern_guard_good", 3, Set::Avx512).contains("fewer than 3"));
    // The same for a set of which it is not the width, the other way round, is no fault of it.
    assert_eq!(products("tern_guard_good", 2, Set::Avx2), "");
}

#[test]
fn only_innermost_loops_count() {
    let counts = counts("tern_guard_good", Set::Avx512);
    let multiplies: Vec<usize> = counts.iter().map(|c| c.multiplies).collect();
    assert_eq!(multiplies, [0, 2], "the loop that holds another is none of them");
}

#[test]
fn scalar_code_is_rejected() {
    for set in Set::ALL {
        let counts = counts("tern_guard_scalar", set);
        assert!(counts.iter().any(|c| c.scalar > 0), "{counts:?}");
        for c in counts {
            let products = Form::Products { least: [1; 3], base_spills: 9 };
            for form in [products, Form::Elements { least: 1 }] {
                let faults = form.faults(set, &c, true).join("; ");
                assert!(faults.contains("scalar arithmetic"), "{set:?}: {faults}");
            }
        }
    }
}

#[test]
fn spills_and_floats_loaded_one_by_one_are_rejected() {
    for spilled in ["tern_guard_spills", "tern_guard_frame"] {
        let faults = products(spilled, 1, Set::Avx512);
        assert!(faults.contains("spilled"), "{spilled}: {faults}");
    }
    let faults = products("tern_guard_one_by_one", 1, Set::Avx512);
    assert!(faults.contains("one by one"), "{faults}");
}

#[test]
fn narrow_vectors_are_rejected() {
    // Code for AVX-512 that computes with half of a register, as compilers prefer by themselves.
    let narrow = Counts { narrow: 4, full: 8, multiplies: 8, ..Counts::default() };
    let form = Form::Products { least: [8; 3], base_spills: 0 };
    let faults = form.faults(Set::Avx512, &narrow, true).join("; ");
    assert!(faults.contains("narrower"), "{faults}");
}
