//! Ranks by counting and the largest by insertion, rows in parallel.

use tern_shaders::cpu::loss::IGNORED;
use tern_shaders::cpu::metrics::{Rank, TopK};
use tern_shaders::{Arg, TwinFn};

use super::parallel::{rows, rows2};
use super::vmath::vectorized;

pub(super) static TABLE: &[(&str, TwinFn<f32>)] =
    &[("metrics/rank", rank), ("metrics/top_k", top_k)];

vectorized! {
    /// Elements above `own`, or equal to it too.
    fn above(x: &[f32], own: f32, equal: bool) -> u32 {
        x.iter().map(|x| u32::from(*x > own || (equal && *x == own))).sum()
    }
}

fn rank(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rank = bytemuck::from_bytes(p);
    let [logits, target, ranks] = args else { unreachable!("three bindings") };
    let (logits, target, classes) = (logits.real(), target.word(), p.classes as usize);
    rows(ranks.word_mut(), 1, classes, |first, ranks| {
        for (i, rank) in ranks.iter_mut().enumerate() {
            let row = &logits[(first + i) * classes..][..classes];
            *rank = match target[first + i] {
                IGNORED => IGNORED,
                class => {
                    let place = (class as usize).min(classes - 1);
                    let own = row[place];
                    above(&row[..place], own, true) + above(&row[place + 1..], own, false)
                }
            };
        }
    });
}

fn top_k(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &TopK = bytemuck::from_bytes(p);
    let [x, values, places] = args else { unreachable!("three bindings") };
    let (x, classes, k) = (x.real(), p.classes as usize, p.k as usize);
    let (values, places) = (values.real_mut(), places.word_mut());
    rows2((values, k), (places, k), classes, |first, values, places| {
        let rows = values.chunks_exact_mut(k).zip(places.chunks_exact_mut(k));
        for (i, (values, places)) in rows.enumerate() {
            let mut found = 0;
            for (place, value) in x[(first + i) * classes..][..classes].iter().enumerate() {
                if found == k && *value <= values[k - 1] {
                    continue;
                }
                // Behind every element that is as large, since that has the lower place.
                let mut at = if found < k { found } else { k - 1 };
                while at > 0 && *value > values[at - 1] {
                    values[at] = values[at - 1];
                    places[at] = places[at - 1];
                    at -= 1;
                }
                values[at] = *value;
                places[at] = place as u32;
                found = (found + 1).min(k);
            }
        }
    });
}
