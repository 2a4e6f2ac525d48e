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
prelude!(/** Parameters, bias and result of [`crate::cpu::matmul`]; needs `ACTIVATION`. */ MATMUL_PARAMS = "matmul_params");
prelude!(/** `load_a` from aligned rows of four; needs `TRANS_A` and `CHECK_K`. */ MATMUL_A_VEC4 = "matmul_a_vec4");
prelude!(/** `load_a` word by word; needs `TRANS_A`. */ MATMUL_A_SCALAR = "matmul_a_scalar");
prelude!(/** `load_b` from aligned rows of four; needs `TRANS_B`. */ MATMUL_B_VEC4 = "matmul_b_vec4");
prelude!(/** `load_b` word by word; needs `TRANS_B`. */ MATMUL_B_SCALAR = "matmul_b_scalar");
prelude!(/** `reduce_start`, `reduce_pair`, `reduce_end` by [`crate::cpu::reduce::Reduction`]. */ REDUCE = "reduce");
