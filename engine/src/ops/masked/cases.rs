//! Cases of the masked kernels.

use tern_shaders::kernels::chacha::WORDS_A_MASK;
use tern_shaders::kernels::masked::{
    ENCODE_MASK, EncodeMask, MASK_WORDS, MaskWords, SUM, Sum, UNMASK_DECODE, UnmaskDecode,
};

use crate::Data;
use crate::ops::Case;
use crate::ops::aggregate::{numbers, words};

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, count, replicas) in [(16, 0, 1), (48, 3, 2), (16, 700, 1), (131_072, 2, 1)] {
        let table = words(WORDS_A_MASK * (count * replicas).max(1));
        // Signs of both kinds in the last word of each mask.
        let signed = |(i, w): (usize, u32)| match i % WORDS_A_MASK {
            11 => {
                if w % 2 == 0 {
                    1
                } else {
                    u32::MAX
                }
            }
            _ => w,
        };
        let table = Data::U32(table.into_iter().enumerate().map(signed).collect());
        let given = Data::U32(words(n * replicas));
        let (n, count) = (n as u32, count as u32);
        for (bits, counter) in [(32, 0), (20, u32::MAX - 1)] {
            let modulus_mask = u32::MAX >> (32 - bits);
            let label = format!("{n} under {count} masks, {bits} bits");
            // Rows of floats are longer than what is used of them.
            let stride = n + 4;
            let x = Data::F32(numbers(stride as usize * replicas));
            for (fraction_bits, bound) in [(0, 3), (20, (1 << 31) - 1)] {
                let p =
                    EncodeMask { n, stride, count, counter, fraction_bits, bound, modulus_mask };
                let buffers = vec![x.clone(), table.clone(), given.clone()];
                let label = format!("{label}, {fraction_bits} of fraction");
                cases.push(Case::new(&ENCODE_MASK, label, &p, replicas, buffers).tolerance(0.0));
            }
            let p = MaskWords { n, count, counter, modulus_mask };
            let buffers = vec![table.clone(), given.clone()];
            cases.push(Case::new(&MASK_WORDS, &label, &p, replicas, buffers));
            let p = UnmaskDecode { n, stride, count, counter, modulus_mask, weight: 0.3e-5 };
            let buffers = vec![given.clone(), table.clone(), x];
            cases.push(Case::new(&UNMASK_DECODE, &label, &p, replicas, buffers).tolerance(0.0));
        }
    }
    for (n, clients, replicas) in [(4, 1, 1), (52, 7, 2), (16, 5_000, 1), (1 << 18, 4, 1)] {
        for (bits, accumulate) in [(32, 0), (20, 1)] {
            let p = Sum { n, clients, modulus_mask: u32::MAX >> (32 - bits), accumulate };
            let given = Data::U32(words(n as usize * clients as usize * replicas));
            let total = Data::U32(words(n as usize * replicas));
            let label = format!("{n} from {clients}, {bits} bits");
            cases.push(Case::new(&SUM, label, &p, replicas, vec![given, total]));
        }
    }
    cases
}
