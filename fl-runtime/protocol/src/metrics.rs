//! What clients measure, and means over clients.
//!
//! ```
//! use tern_protocol::metrics::{Metrics, check, mean};
//!
//! let ann = Metrics::from([("loss".to_string(), 1.0), ("accuracy".to_string(), 0.5)]);
//! let bob = Metrics::from([("loss".to_string(), 3.0)]);
//! // Bob has three times as many samples, and no accuracy.
//! let both = mean([(10, &ann), (30, &bob)].into_iter());
//! assert_eq!(both["loss"], 2.5);
//! assert_eq!(both["accuracy"], 0.5);
//!
//! let named = ["loss", "accuracy"].map(String::from);
//! let diverged = Metrics::from([("loss".to_string(), f64::NAN)]);
//! assert!(check(&both, &named).is_ok() && check(&diverged, &named).is_err());
//! // The run's plan says what is measured.
//! assert!(check(&both, &named[..1]).is_err());
//! ```

use std::collections::BTreeMap;

use crate::Refusal;

/// Measurements by name.
pub type Metrics = BTreeMap<String, f64>;

/// Largest magnitude of a metric, so that sums over all samples stay finite.
const MAX_VALUE: f64 = 1e12;

/// Characters that are shown of a name that is not expected.
const SHOWN: usize = 64;

/// Whether a metric has a value that can be added up and kept; a model that diverges has none.
pub fn is_measured(value: f64) -> bool {
    value.abs() <= MAX_VALUE
}

/// Refuses metrics that nobody could have measured, and those that the run's plan doesn't name
/// ([`Evaluation::metrics`](crate::plan::Evaluation::metrics)): what is kept of each round is
/// bounded by the plan. A client that has numbers that are none declines: of a model that diverged
/// there is nothing to add up.
///
/// # Errors
/// [`Refusal::Metrics`], [`Refusal::Metric`].
pub fn check(metrics: &Metrics, named: &[String]) -> Result<(), Refusal> {
    if let Some(name) = metrics.keys().find(|name| !named.contains(name)) {
        // As much of it as tells which it is.
        let name = name.chars().take(SHOWN).collect();
        return Err(Refusal::Metric { name, expected: named.join(", ") });
    }
    if !metrics.values().copied().all(is_measured) {
        return Err(Refusal::Metrics("a number that isn't within ±1e12"));
    }
    Ok(())
}

/// The mean of the middle of what clients measured: for each metric a quarter of the values, at
/// least one where there are three, is left out at either end, and those that stay count alike.
/// Samples, which clients claim, are no weights here. (A trimmed mean, as in Yin et al. 2018,
/// "Byzantine-Robust Distributed Learning".)
///
/// ```
/// use tern_protocol::metrics::{Metrics, middle};
///
/// let measured = [0.5, 0.6, 0.7, 0.8, -1e12].map(|x| Metrics::from([("loss".to_string(), x)]));
/// assert_eq!(middle(measured.iter())["loss"], 0.6);
/// ```
pub fn middle<'a>(parts: impl Iterator<Item = &'a Metrics>) -> Metrics {
    let mut measured: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in parts.flatten() {
        measured.entry(name).or_default().push(*value);
    }
    let mean = |(name, mut values): (&str, Vec<f64>)| {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let cut = count.div_ceil(4).min((count - 1) / 2);
        let kept = &values[cut..count - cut];
        (name.to_string(), kept.iter().sum::<f64>() / kept.len() as f64)
    };
    measured.into_iter().map(mean).collect()
}

/// Leaves out what the run's plan doesn't name, with a word.
pub fn keep_named(metrics: &mut Metrics, named: &[String]) {
    metrics.retain(|name, _| {
        let is_named = named.contains(name);
        if !is_named {
            tracing::debug!(name, "left out: no metric of the run's plan");
        }
        is_named
    });
}

/// Means weighted by samples; a metric counts for those that have it.
pub fn mean<'a>(parts: impl Iterator<Item = (u32, &'a Metrics)>) -> Metrics {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (samples, metrics) in parts {
        for (name, value) in metrics {
            let (sum, weight) = sums.entry(name).or_default();
            *sum += f64::from(samples) * value;
            *weight += f64::from(samples);
        }
    }
    let mean = |(name, (sum, weight)): (&str, (f64, f64))| (name.to_string(), sum / weight);
    sums.into_iter().filter(|(_, (_, weight))| *weight > 0.0).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_of_no_samples_has_no_mean() {
        let measured = |value| Metrics::from([("loss".to_string(), value)]);
        let (half, two) = (measured(0.5), measured(2.0));
        assert_eq!(mean([(0, &half), (0, &two)].into_iter()), Metrics::new());
        assert_eq!(mean([(0, &half), (3, &two), (3, &half)].into_iter()), measured(1.25));
    }
}
