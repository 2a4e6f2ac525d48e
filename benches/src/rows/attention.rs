//! Rows of attention: texts of one sample, by heads as SmolLM2-135M has them.

use tern_engine::Data;
use tern_shaders::kernels::attention::{
    Attention, FORWARD, KEY_BACKWARD, QUERY_BACKWARD, ROTATE, ROW_SUMS, Rotate, RowSums, STORE,
    Store, rotary_table,
};

use super::Size;
use super::recipe::{Contents, Recipe, all_floats, case, floats, repeated, words, words_by};

/// Rows of this family.
pub fn rows(size: Size) -> Vec<Recipe> {
    let mut cases = Vec::new();
    let lengths = size.pick(&[128][..], &[128, 1024, 4096][..]);
    lengths.iter().for_each(|positions| cases.extend(attention(*positions)));
    let words_of = size.pick(1u32 << 20, 1 << 24);
    let (heads, pairs) = (9, 32);
    let rows = words_of / 2 / (heads * 2 * pairs);
    let n = (rows * heads * 2 * pairs) as usize;
    let positions = 1024;
    let p = Rotate { rows, heads, pairs, positions, ..Rotate::default() };
    let table = Data::F32(rotary_table(positions as usize, 64, 1e5)).into();
    let buffers = vec![floats(n, 1), table, words(rows as usize, positions, 2), floats(n, 3)];
    cases.push(case(&ROTATE, format!("{rows} × {heads} × {}", 2 * pairs), &p, buffers));
    let p = RowSums { rows: rows * heads, width: 2 * pairs };
    let sums = (rows * heads) as usize;
    let buffers = all_floats(&ROW_SUMS, &[n, n, sums, 2 * sums]);
    cases.push(case(&ROW_SUMS, format!("{sums} × {}", 2 * pairs), &p, buffers));
    // Rows go to places of their own, in another order.
    let (n, width) = (words_of / 2 / 192, 192);
    let places = words_by(n as usize, move |i| n - 1 - i);
    let all = (n * width) as usize;
    let p = Store { n, width, rows: n };
    let buffers = vec![floats(all, 1), places, floats(all, 2)];
    cases.push(case(&STORE, format!("{n} × {width}"), &p, buffers));
    cases
}

/// Forward and backward in causal order.
fn attention(positions: u32) -> Vec<Recipe> {
    let (heads, group, size) = (9u32, 3, 64);
    let p = Attention {
        queries: positions,
        keys: positions,
        batch: 1,
        heads,
        group,
        size,
        scale: 0.125,
        ..Attention::default()
    };
    let [rows, key_rows] = [heads, heads / group].map(|heads| (positions * heads) as usize);
    let [all, all_keys] = [rows, key_rows].map(|rows| rows * size as usize);
    let window = words_by(2 * positions as usize, |i| if i % 2 == 0 { 0 } else { i / 2 + 1 });
    let inputs = [floats(all, 1), floats(all_keys, 2), floats(all_keys, 3), window];
    // Scores are below 8, so that these stand for the sums of their exponentials.
    let sums = repeated([9.0, 0.1], rows);
    let label = format!("{positions} × {heads} / {group} × {size}");
    // A product of a row takes two operations a number; half of the pairs count.
    let product = u64::from(positions).pow(2) * u64::from(heads * size);
    let row = |kernel, outputs: Vec<Contents>, products: u64| {
        let buffers = [inputs.to_vec(), outputs].concat();
        case(kernel, &label, &p, buffers).flops(products * product)
    };
    vec![
        row(&FORWARD, vec![floats(all, 4), floats(rows, 5)], 2),
        row(&QUERY_BACKWARD, vec![floats(all, 4), sums.clone(), floats(all, 5)], 3),
        row(&KEY_BACKWARD, vec![floats(all, 4), sums, floats(all_keys, 5), floats(all_keys, 6)], 4),
    ]
}
