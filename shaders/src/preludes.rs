//! WGSL that several kernels share.

use crate::Prelude;

macro_rules! prelude {
    ($(#[$meta:meta])* $id:ident = $name:literal) => {
        $(#[$meta])*
        pub const $id: Prelude = Prelude {
            name: $name,
            source: include_str!(concat!("../preludes/", $name, ".wgsl")),
        };
    };
}

prelude!(/** `linear_index`: undoes [`crate::linear_grid`]; needs the constant `GROUP`. */ INDEX = "index");
prelude!(/** `activate` and `activate_gradient` by [`crate::Activation`]. */ ACTIVATION = "activation");
prelude!(/** Word offsets of [`crate::state`]. */ STATE = "state");
prelude!(/** `pcg4d`, `uniform`: the counter-based stream of [`crate::cpu::random`]. */ RANDOM = "random");
prelude!(/** `add_masks`: ChaCha20 streams of [`crate::cpu::chacha`]; needs the binding `masks`. */ CHACHA = "chacha");
prelude!(/** 64-bit integers in pairs of words, `fixed64` of [`crate::cpu::fixed`]. */ FIXED64 = "fixed64");
prelude!(/** `tensor_of`: the tensor of an element; needs the binding `segments` and `p.tensors`. */ SEGMENT = "segment");
prelude!(/** `finite_or_zero`: what is not finite counts as zero. */ FINITE = "finite");
prelude!(/** Shared by the variants of `ternary/scale`. */ TERNARY_SCALE = "ternary_scale");
