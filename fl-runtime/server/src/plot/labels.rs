//! Labels beside each other.

/// Places at least `gap` apart, in the order of `wanted` and in all as near to it as can be, from
/// `low` to `high`; nearer to each other only where so many find no room there.
pub fn apart(wanted: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let last = wanted.len().saturating_sub(1) as f64;
    let gap = gap.min((high - low) / last.max(1.0));
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    // Without the gaps places only have to rise: neighbors that don't are put together at their
    // mean (pool adjacent violators).
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (rank, at) in order.iter().enumerate() {
        pools.push((wanted[*at] - gap * rank as f64, 1));
        while let [.., (a, n), (b, m)] = pools.as_slice()
            && a > b
        {
            let (n, m) = (*n, *m);
            let mean = (a * n as f64 + b * m as f64) / (n + m) as f64;
            pools.truncate(pools.len() - 2);
            pools.push((mean, n + m));
        }
    }
    let risen = pools.into_iter().flat_map(|(place, count)| std::iter::repeat_n(place, count));
    let mut places = vec![0.0; wanted.len()];
    for (rank, (at, place)) in order.into_iter().zip(risen).enumerate() {
        places[at] = place.clamp(low, (high - gap * last).max(low)) + gap * rank as f64;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stay_where_they_are_wanted_or_as_near_as_they_fit() {
        assert_eq!(apart(&[80.0, 10.0, 40.0], 15.0, (0.0, 100.0)), [80.0, 10.0, 40.0]);
        assert_eq!(apart(&[50.0, 50.0], 10.0, (0.0, 100.0)), [45.0, 55.0]);
        assert_eq!(apart(&[50.0, 48.0, 90.0], 10.0, (0.0, 100.0)), [54.0, 44.0, 90.0]);
        assert_eq!(apart(&[99.0, 100.0], 10.0, (0.0, 100.0)), [90.0, 100.0]);
        assert_eq!(apart(&[5.0, 5.0, 5.0], 10.0, (0.0, 10.0)), [0.0, 5.0, 10.0]);
        assert!(apart(&[], 10.0, (0.0, 10.0)).is_empty());
    }

    #[test]
    fn labels_never_overlap() {
        for seed in 1..200u32 {
            let place = |at: u32| f64::from((seed * 7919 + at * at * 104_729) % 300);
            let wanted: Vec<f64> = (0..seed % 12).map(place).collect();
            let found = apart(&wanted, 14.0, (10.0, 290.0));
            let mut sorted = found.clone();
            sorted.sort_by(f64::total_cmp);
            assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] > 14.0 - 1e-9), "{found:?}");
            assert!(found.iter().all(|y| (10.0..=290.0 + 1e-9).contains(y)), "{found:?}");
            for (a, x) in wanted.iter().zip(&found) {
                for (b, y) in wanted.iter().zip(&found) {
                    assert!(a >= b || x < y, "the order of lines is that of labels");
                }
            }
        }
    }
}
