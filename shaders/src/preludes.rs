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
prelude!(/** `Wide`: four neighboring elements as one; reads a binding `weights` of them. */ WIDE4 = "wide4");
prelude!(/** `Wide`: the same names, element by element. */ WIDE1 = "wide1");
prelude!(/** `cell_forward`, `cell_backward` on a type `Units` that the kernel defines; needs the constant `CIFG`. */ LSTM = "lstm");
