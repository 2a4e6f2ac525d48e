//! WGSL that several kernels share.
//!
//! ```rust
//! use tern_shaders::kernels::update::RESCALE;
//! use tern_shaders::preludes::INDEX;
//!
//! assert!(INDEX.source.contains("fn linear_index"));
//! // A kernel that names it has it in its text, after the constants.
//! let wgsl = RESCALE.variants[0].wgsl();
//! assert!(wgsl.starts_with("const GROUP: u32 = 64u;"));
//! assert!(wgsl.contains(INDEX.source));
//! ```

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
prelude!(/** `pcg4d`, `uniform01`: the counter-based stream of [`crate::kernels::random`]. */ RANDOM = "random");
prelude!(/** `lanes`: the part of a last vec4 that belongs to a range. */ LANES = "lanes");
prelude!(/** `token`: one token of a stream of words or of packed bytes; needs `tokens`, `p.length`, `p.packed`. */ TOKEN = "token");
prelude!(/** `permute`: a keyed bijection of [0, count); needs [`RANDOM`]. */ PERMUTE = "permute");
prelude!(/** `pixels`: four pixels of an invocation, split into image, row and column; needs `GROUP`. */ PIXELS = "pixels");
prelude!(/** `row_sum`, `row_max` and where a row is: a workgroup a row; see `row_kernel!`. */ ROWS_GROUP = "rows_group");
prelude!(/** The functions of [`ROWS_GROUP`] by subgroup operations. */ ROWS_SUBGROUP = "rows_subgroup");
prelude!(/** The functions of [`ROWS_GROUP`] with an invocation a row. */ ROWS_SINGLE = "rows_single");
prelude!(/** `column_sum` and where a column is: a workgroup for `COLUMNS` columns; see `column_kernel!`. */ COLUMNS_GROUP = "columns_group");
prelude!(/** The functions of [`COLUMNS_GROUP`] with an invocation a column. */ COLUMNS_SINGLE = "columns_single");
prelude!(/** `Best` and `before`: values ordered with their places. */ BEST = "best");
prelude!(/** `row_best` for [`ROWS_GROUP`]; needs [`BEST`]. */ BEST_GROUP = "best_group");
prelude!(/** `row_best` for [`ROWS_SINGLE`]; needs [`BEST`]. */ BEST_SINGLE = "best_single");
prelude!(/** `kept`: dropout's mask; needs [`RANDOM`], [`STATE`], the parameter `operation`, `threshold`. */ KEPT = "kept");
prelude!(/** `Wide`: four neighboring elements as one; reads a binding `weights` of them. */ WIDE4 = "wide4");
prelude!(/** `Wide`: the same names, element by element. */ WIDE1 = "wide1");
prelude!(/** `cell_sigmoid`, `cell_tanh` on a type `Units` that the kernel defines. */ SQUASH = "squash");
prelude!(/** An LSTM's `cell_forward`, `cell_backward`; needs [`SQUASH`] and the constant `CIFG`. */ LSTM = "lstm");
prelude!(/** A GRU's `cell_forward`, `cell_backward`; needs [`SQUASH`]. */ GRU = "gru");
prelude!(/** `add_masks`: ChaCha20 streams of [`crate::kernels::chacha`]; needs the binding `masks`. */ CHACHA = "chacha");
prelude!(/** 64-bit integers in pairs of words, `fixed64` of [`crate::kernels::fixed`]. */ FIXED64 = "fixed64");
prelude!(/** `tensor_of`: the tensor of an element; needs the binding `segments` and `p.tensors`. */ SEGMENT = "segment");
prelude!(/** `divisor`: the second moment that Adam divides by. */ ADAM = "adam");
prelude!(/** `divisor`: the largest second moment so far; has the binding `largest`. */ AMSGRAD = "amsgrad");
prelude!(/** `finite_or_zero`, `normal_or_zero`: what is not finite, or subnormal, counts as zero. */ FINITE = "finite");
prelude!(/** Shared by the variants of `ternary/scale`. */ TERNARY_SCALE = "ternary_scale");
prelude!(/** Parameters, bias and result of [`crate::kernels::matmul`]. */ GEMM_PARAMS = "gemm_params");
prelude!(/** `part` and `store_tile` of the products in registers; needs `ACTIVATION`, `ROWS`, `COLUMNS`. */ MATMUL_STORE = "matmul_store");
prelude!(/** `a_four`: four floats of A. */ MATMUL_A_VEC4 = "matmul_a_vec4");
prelude!(/** `load_a` from aligned rows of four; needs `a_four`, `TRANS_A` and `CHECK_K`. */ MATMUL_A_BLOCKS = "matmul_a_blocks");
prelude!(/** `load_a_row` from aligned rows of four of an A that isn't transposed; needs `a_four`. */ MATMUL_A_ROWS = "matmul_a_rows");
prelude!(/** `load_a` and `load_a_row` word by word; needs `TRANS_A`. */ MATMUL_A_SCALAR = "matmul_a_scalar");
prelude!(/** `b_four`: four floats of B. */ MATMUL_B_VEC4 = "matmul_b_vec4");
prelude!(/** `load_b` from aligned rows of four; needs `b_four` and `TRANS_B`. */ MATMUL_B_BLOCKS = "matmul_b_blocks");
prelude!(/** `a_four` and `b_four` of words of two numbers, by integer instructions that every device has; needs `floats`. */ WORDS_OF_TWO = "words_of_two");
prelude!(/** `floats` of halves. */ FROM_HALF = "from_half");
prelude!(/** `floats` of bfloat16. */ FROM_BF16 = "from_bf16");
prelude!(/** `a_four` and `b_four` of 16-bit floats. */ HALF_FLOATS = "half_floats");
prelude!(/** `load_b` word by word; needs `TRANS_B`. */ MATMUL_B_SCALAR = "matmul_b_scalar");
prelude!(/** `Number` and `Four` of 32 bits. */ SINGLE = "single");
prelude!(/** `Number` and `Four` of 16 bits. */ HALF = "half");
prelude!(/** Parameters of [`crate::kernels::convolution`]. */ CONVOLUTION_PARAMS = "convolution_params");
prelude!(/** `seen_by`: output places that saw input places through a tap. */ SEEN = "seen");
prelude!(/** `reduce_start`, `reduce_pair`, `reduce_end` by [`crate::kernels::reduce::Reduction`]. */ REDUCE = "reduce");
prelude!(/** Parameters of [`crate::kernels::attention`], and the keys that a query attends to. */ ATTENTION_PARAMS = "attention_params");
prelude!(/** Rows that pass by a workgroup in its memory; needs [`ATTENTION_PARAMS`], `LANES`, `ROWS`, `PART`, `TILE`. */ ATTENTION_GROUP = "attention_group");
prelude!(/** The functions of [`ATTENTION_GROUP`] with an invocation a row. */ ATTENTION_SINGLE = "attention_single");
prelude!(/** Parameters of [`crate::kernels::normalize::groups`], and whose an element is. */ GROUP_NORM = "group_norm");
