//! What the inner loops of the `Cpu` device's functions must be made of: the table.

use super::loops::{Counts, Width};

/// An instruction set, as the names of the functions that are compiled for it say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Avx512,
    Avx2,
    Sse2,
}

impl Set {
    pub const ALL: [Set; 3] = [Set::Avx512, Set::Avx2, Set::Sse2];

    /// What a function's name has that is compiled for it.
    pub fn mark(self) -> &'static str {
        match self {
            Set::Avx512 => "vectorize_avx512",
            Set::Avx2 => "vectorize_avx2",
            Set::Sse2 => "vectorize_sse2",
        }
    }

    pub fn width(self) -> Width {
        match self {
            Set::Avx512 => Width::Zmm,
            Set::Avx2 => Width::Ymm,
            Set::Sse2 => Width::Xmm,
        }
    }
}

/// What a loop is for, and so what must not occur in it.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Innermost loops of sums of products, kept in registers: so many packed multiplications an
    /// iteration at least, by set in the order of [`Set::ALL`], in the loop that has most. In
    /// none of the loops anything scalar, narrow or spilled; but the baseline, which has no
    /// multiply-add and loads factors as scalars, may spill so many vectors.
    Products { least: [usize; 3], base_spills: usize },
    /// Element by element, in a loop or not: so much packed arithmetic of the full width at
    /// least, and nothing scalar or narrow.
    Elements { least: usize },
}

/// Hot code: where it is, and what it must be.
pub struct Rule {
    /// For messages.
    pub kernel: &'static str,
    /// The function that calls `with_vectors!`, with its module: the code is what its closures
    /// become.
    pub of: &'static str,
    /// Functions that the code is inlined from, each by the end of its file's path and its name:
    /// it is where all of them are. The compiler forgets some of them where it merges code that
    /// is alike; what [`Rule::of`] names it keeps.
    pub within: &'static [(&'static str, &'static str)],
    pub form: Form,
}

/// To add a kernel: the function that calls `with_vectors!`, the form, and for products the
/// function whose loop it is. Run the test once with a `least` that nothing has: its message
/// prints the counts.
pub const RULES: &[Rule] = &[
    Rule {
        kernel: "matrix products",
        of: "product::part",
        within: &[("product/tile.rs", "tiles")],
        // Fourteen rows by two vectors; without 32 registers six, of four lanes four.
        form: Form::Products { least: [28, 12, 8], base_spills: 2 },
    },
    Rule {
        kernel: "matrix products of few rows",
        of: "product::part",
        within: &[("product/dot.rs", "tile")],
        // Five rows by two columns.
        form: Form::Products { least: [10, 10, 10], base_spills: 2 },
    },
    Rule {
        kernel: "convolutions",
        of: "product::multiply_made",
        within: &[("product/tile.rs", "tiles")],
        form: Form::Products { least: [28, 12, 8], base_spills: 2 },
    },
    Rule {
        kernel: "convolutions, weights of wide planes",
        of: "convolution::add_weights",
        within: &[("convolution/dots.rs", "tiles")],
        // Five filters by two taps.
        form: Form::Products { least: [10, 10, 10], base_spills: 2 },
    },
    Rule {
        kernel: "LSTM, products",
        of: "lstm::walk::separate",
        within: &[("lstm/walk.rs", "multiply")],
        // Six rows by four vectors; without 32 registers by two.
        form: Form::Products { least: [24, 12, 12], base_spills: 2 },
    },
    Rule {
        kernel: "LSTM forward",
        of: "lstm::forward_on",
        within: &[],
        form: Form::Elements { least: 75 },
    },
    Rule {
        kernel: "LSTM backward",
        of: "lstm::backward_on",
        within: &[],
        form: Form::Elements { least: 40 },
    },
];

impl Form {
    /// What is wrong with code that counts so. `most`: whether no other loop of the rule
    /// multiplies more.
    pub fn faults(&self, set: Set, counts: &Counts, most: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, what: &str| {
            if wrong {
                faults.push(format!("{what} ({counts:?})"));
            }
        };
        let base = set == Set::Sse2;
        match *self {
            Form::Products { least, base_spills } => {
                let least = least[set as usize];
                let few = format!("fewer than {least} packed multiplications of full width");
                fault(most && counts.multiplies < least, &few);
                fault(!base && counts.lanes > 0, "floats loaded one by one");
                let spills = if base { base_spills } else { 0 };
                fault(counts.spills > spills, "vectors spilled to the stack");
            }
            Form::Elements { least } => {
                let few = format!("less than {least} packed arithmetic of full width");
                fault(counts.full < least, &few);
            }
        }
        fault(counts.scalar > 0, "scalar arithmetic");
        fault(counts.narrow > 0, "arithmetic on narrower vectors");
        faults
    }
}
