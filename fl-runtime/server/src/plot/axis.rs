//! Axes with ticks at round numbers.

/// An axis from its least to its greatest number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// Where it begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// Between two ticks.
    step: f64,
}

/// Of the greatest number: what begins below that much of it is shown from 0.
const FROM_ZERO: f64 = 0.4;

/// Of a step, what rounding may come to.
const SLACK: f64 = 1e-9;

impl Axis {
    /// An axis that the numbers fill, with about so many ticks. What isn't finite is left out.
    pub fn of(values: impl IntoIterator<Item = f64>, ticks: usize) -> Self {
        let (mut low, mut high, mut whole) = (f64::INFINITY, f64::NEG_INFINITY, true);
        for value in values.into_iter().filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
            whole &= value.fract() == 0.0;
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // Numbers near 0, or all alike, say more beside it.
        if low > 0.0 && (low < FROM_ZERO * high || low == high) {
            low = 0.0;
        } else if high < 0.0 && (high > FROM_ZERO * low || low == high) {
            high = 0.0;
        } else if low == high {
            high = 1.0;
        }
        let step = round((high - low) / ticks.max(1) as f64);
        Axis { low, high, step: if whole { step.max(1.0) } else { step } }
    }

    /// The same from tick to tick: numbers that are not negative stay on an axis that isn't, and
    /// percentages on one to 100.
    pub fn rounded(self) -> Self {
        let Axis { low, high, step } = self;
        let low = (low / step + SLACK).floor() * step;
        let high = (high / step - SLACK).ceil() * step;
        Axis { low, high, step }
    }

    /// Where a number is: 0 at the low end, 1 at the high one.
    pub fn share(&self, value: f64) -> f64 {
        // In halves: the difference of the greatest numbers isn't one.
        (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0)
    }

    /// The ticks, and how they are written.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let first = (self.low / self.step - SLACK).ceil();
        let last = (self.high / self.step + SLACK).floor();
        let count = (last - first).clamp(0.0, 100.0) as usize;
        let digits = (-self.step.log10().floor()).clamp(0.0, 300.0) as usize;
        let far = self.low.abs().max(self.high.abs());
        let exact = (far.log10().floor() - self.step.log10().floor()).clamp(0.0, 15.0) as usize;
        let write = |value: f64| match (far >= 1e7 || digits > 6) && value != 0.0 {
            true => format!("{value:.exact$e}"),
            false => format!("{value:.digits$}"),
        };
        // Zero has no sign.
        let ticks = (0..=count).map(|at| (first + at as f64) * self.step + 0.0);
        ticks.map(|value| (value, write(value))).collect()
    }
}

/// The least of 1, 2 and 5 times a power of ten that isn't below.
fn round(step: f64) -> f64 {
    let power = 10f64.powf(step.max(f64::MIN_POSITIVE).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|digit| digit * power);
    steps.into_iter().find(|round| *round >= step * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(values: &[f64]) -> Vec<String> {
        let axis = Axis::of(values.iter().copied(), 5).rounded();
        axis.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_nothing_negative_or_above_a_hundred_is_made_up() {
        for (values, ticks) in [
            (&[44.1, 58.7][..], "40 45 50 55 60"),
            (&[3.0, 99.6], "0 20 40 60 80 100"),
            (&[0.02, 0.97], "0.0 0.2 0.4 0.6 0.8 1.0"),
            (&[0.953, 0.998], "0.95 0.96 0.97 0.98 0.99 1.00"),
            (&[1.3, 4.1], "0 1 2 3 4 5"),
            (&[-0.3, 0.5], "-0.4 -0.2 0.0 0.2 0.4 0.6"),
            (&[-7.0, -6.5], "-7.0 -6.9 -6.8 -6.7 -6.6 -6.5"),
            (&[0.7, 0.7], "0.0 0.2 0.4 0.6 0.8"),
            (&[0.0], "0 1"),
            (&[], "0 1"),
            (&[f64::NAN, 2.0, f64::INFINITY, 4.0], "2 3 4"),
            (&[0.0, 3e7], "0 1e7 2e7 3e7"),
        ] {
            assert_eq!(written(values).join(" "), ticks, "{values:?}");
        }
    }

    #[test]
    fn every_number_is_on_the_axis() {
        for exponent in [-290, -9, -1, 0, 5, 12, 307] {
            let unit = 10f64.powi(exponent);
            for (low, high) in [(1.0, 1.0), (1.0, 1.7), (-3.1, 9.9), (-9.9, -0.1), (0.3, 0.300001)]
            {
                let axis = Axis::of([low * unit, high * unit], 5);
                for axis in [axis, axis.rounded()] {
                    for value in [low * unit, high * unit] {
                        let share = axis.share(value);
                        assert!((-1e-9..=1.0 + 1e-9).contains(&share), "{value}: {axis:?}");
                    }
                    let ticks = axis.ticks();
                    assert!((1..=12).contains(&ticks.len()), "{axis:?}: {ticks:?}");
                }
            }
        }
    }

    #[test]
    fn rounds_are_whole() {
        let ticks = |last: u32| {
            let axis = Axis::of((1..=last).map(f64::from), 6);
            axis.ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ticks(1), "0 1");
        assert_eq!(ticks(3), "0 1 2 3");
        assert_eq!(ticks(60), "0 10 20 30 40 50 60");
        assert_eq!(ticks(64), "0 20 40 60");
    }
}
