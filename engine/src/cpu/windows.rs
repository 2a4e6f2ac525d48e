//! Windows over padded lines, as convolutions and pooling read them.

use std::ops::Range;

/// Those of a line's windows that see one of its `width` pixels at their tap, and no padding;
/// window o sees pixel o · stride + tap − padding.
#[inline(always)]
pub(super) fn seeing(
    windows: Range<usize>,
    tap: usize,
    width: usize,
    padding: usize,
    stride: usize,
) -> Range<usize> {
    let first = padding.saturating_sub(tap).div_ceil(stride);
    let past = (width + padding).saturating_sub(tap).div_ceil(stride);
    first.max(windows.start)..past.min(windows.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_see_pixels_or_padding() {
        for (width, padding, stride) in [(5, 0, 1), (5, 2, 1), (7, 1, 2), (4, 3, 3), (1, 4, 2)] {
            for tap in 0..6 {
                let pixel = |o: usize| (o * stride + tap).checked_sub(padding);
                let sees = |o: &usize| pixel(*o).is_some_and(|pixel| pixel < width);
                let expected: Vec<usize> = (2..9).filter(sees).collect();
                let found: Vec<usize> = seeing(2..9, tap, width, padding, stride).collect();
                assert_eq!(found, expected, "{width} {padding} {stride} {tap}");
            }
        }
    }
}
