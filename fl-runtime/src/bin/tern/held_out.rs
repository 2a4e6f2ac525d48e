//! Samples that nothing is trained on.

use anyhow::{Result, bail};

/// Takes a share of all rows away, of each client's in proportion.
pub fn hold_out_rows(share: f64, parts: &mut [Vec<usize>], seed: u32) -> Result<Vec<usize>> {
    let all: usize = parts.iter().map(Vec::len).sum();
    let total = match share > 0.0 {
        // Few rows are measured by one at least.
        true => ((share * all as f64).round() as usize).max(1),
        false => 0,
    };
    if total >= all {
        bail!("{share} of {all} rows, which leaves nothing to train on");
    }
    let (mut held_out, mut before) = (Vec::new(), 0);
    for (client, part) in parts.iter_mut().enumerate() {
        // What is due of the rows so far: clients may be too small for a row each.
        let due = |rows: usize| rows * total / all;
        let kept = part.len() - (due(before + part.len()) - due(before));
        before += part.len();
        // In random order, so that the end of a sorted file isn't what is missing.
        let key = [seed, client as u32 ^ 0x0e1d];
        let count = part.len() as u32;
        let mixed: Vec<usize> = (0..count)
            .map(|i| part[tern_shaders::kernels::data::permute(i, count, key) as usize])
            .collect();
        held_out.extend_from_slice(&mixed[kept..]);
        *part = mixed[..kept].to_vec();
    }
    Ok(held_out)
}

/// Takes the ends of texts away, a share of all tokens. Where less than a sample is due, the next
/// text gives what this one doesn't.
pub fn hold_out_ends(share: f64, texts: &mut [Vec<u32>]) -> Result<Vec<Vec<u32>>> {
    let mut due = 0.0;
    let mut end = |text: &mut Vec<u32>| {
        due += share * text.len() as f64;
        // A token, and the next one to be predicted.
        let taken = if due < 2.0 { 0 } else { (due as usize).min(text.len()) };
        due -= taken as f64;
        text.split_off(text.len() - taken)
    };
    let held_out: Vec<Vec<u32>> = texts.iter_mut().map(&mut end).collect();
    if share > 0.0 && held_out.iter().all(|text| text.len() < 2) {
        let all: usize = texts.iter().map(Vec::len).sum();
        bail!("{share} of {all} tokens, expected two or more, or 0");
    }
    Ok(held_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_held_out_however_small_clients_are() {
        for (clients, rows) in [(100, 9), (900, 1), (3, 300), (1, 2)] {
            let mut parts: Vec<Vec<usize>> =
                (0..clients).map(|c| (c * rows..(c + 1) * rows).collect()).collect();
            let held_out = hold_out_rows(0.1, &mut parts, 1).unwrap();
            let all = clients * rows;
            assert_eq!(held_out.len(), (all / 10).max(1), "{clients} × {rows}");
            let mut every = [parts.concat(), held_out].concat();
            every.sort_unstable();
            assert_eq!(every, (0..all).collect::<Vec<_>>());
            // Nobody gives more than their share, rounded up.
            assert!(parts.iter().all(|part| rows - part.len() <= rows.div_ceil(10)));
        }
        assert!(hold_out_rows(0.0, &mut [vec![0]], 1).unwrap().is_empty());
        let error = hold_out_rows(0.1, &mut [vec![0]], 1).unwrap_err().to_string();
        assert!(error.contains("0.1 of 1 rows, which leaves nothing"), "{error}");
    }

    #[test]
    fn ends_of_short_texts_are_held_out() {
        let mut texts = vec![vec![1; 9]; 100];
        let held_out = hold_out_ends(0.1, &mut texts).unwrap();
        let samples = held_out.iter().filter(|text| text.len() > 1).count();
        let tokens: usize = held_out.iter().map(Vec::len).sum();
        assert!(samples > 30 && (88..=90).contains(&tokens), "{samples} {tokens}");
        let mut long = vec![vec![1; 1000], vec![2; 500]];
        let lengths = hold_out_ends(0.1, &mut long).unwrap();
        assert_eq!([lengths[0].len(), lengths[1].len(), long[0].len()], [100, 50, 900]);
        let error = hold_out_ends(0.1, &mut [vec![1; 9]]).unwrap_err().to_string();
        assert!(error.contains("0.1 of 9 tokens, expected two or more, or 0"), "{error}");
        assert_eq!(hold_out_ends(0.0, &mut [vec![1; 9]]).unwrap(), [[0; 0]]);
    }
}
