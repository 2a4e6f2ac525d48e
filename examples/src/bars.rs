//! What was before and after, as two bars for each of many.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tern_fl::server::plot::{Anchor, Axis, COLORS, GRAY, LIGHT, Svg, text_width};

use crate::report::Report;

/// Width of a picture, pixels.
const WIDTH: f64 = 720.0;
/// Size of text, pixels.
const TEXT: f64 = 13.0;
/// Height of a bar.
const BAR: f64 = 11.0;
/// From one pair to the next.
const PAIR: f64 = 2.0 * BAR + 10.0;
/// Characters of a name that are shown.
const NAME: usize = 32;
/// Above the first pair: title and legend.
const HEAD: f64 = 66.0;
/// Of the bars before and after.
const FILLS: [&str; 2] = ["#b3b3b3", COLORS[0]];

/// Somebody's two values.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Whose.
    pub name: String,
    /// Before and after.
    pub values: [f64; 2],
}

/// A bar from zero to its value.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bar {
    left: f64,
    width: f64,
    top: f64,
}

/// Where everything is.
struct Layout {
    axis: Axis,
    /// Left and right end of the axis.
    across: (f64, f64),
    bars: Vec<[Bar; 2]>,
    bottom: f64,
}

impl Layout {
    fn of(pairs: &[Pair]) -> Self {
        let values = pairs.iter().flat_map(|pair| pair.values);
        let axis = Axis::of(values.chain([0.0]), 8).rounded();
        let names = pairs.iter().map(|pair| text_width(&short(&pair.name), TEXT));
        let across = (20.0 + names.fold(40.0, f64::max), WIDTH - 52.0);
        let bars = pairs.iter().enumerate().map(|(at, pair)| {
            let mut top = HEAD + PAIR * at as f64 + 5.0 - BAR;
            pair.values.map(|value| {
                top += BAR;
                let [zero, end] = [0.0, value].map(|value| place(&axis, across, value));
                Bar { left: zero.min(end), width: (end - zero).abs(), top }
            })
        });
        Layout { axis, across, bars: bars.collect(), bottom: HEAD + PAIR * pairs.len() as f64 }
    }
}

fn place(axis: &Axis, (left, right): (f64, f64), value: f64) -> f64 {
    left + (right - left) * axis.share(value)
}

/// A name that isn't too long.
fn short(name: &str) -> String {
    match name.chars().nth(NAME) {
        Some(_) => name.chars().take(NAME - 1).chain(['…']).collect(),
        None => name.to_owned(),
    }
}

/// Draws pairs of bars, one below the other, as SVG; `names` are of what was before and after.
/// Values that aren't finite have no bar. Returns the path.
pub fn bars(
    report: &Report,
    file: &str,
    (title, axis): (&str, &str),
    names: [&str; 2],
    pairs: &[Pair],
) -> Result<PathBuf> {
    let path = report.path(file);
    let svg = draw((title, axis), names, pairs);
    std::fs::write(&path, svg).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn draw((title, axis): (&str, &str), names: [&str; 2], pairs: &[Pair]) -> String {
    let layout = Layout::of(pairs);
    let (across, bottom) = (layout.across, layout.bottom);
    let mut svg = Svg::new((WIDTH, bottom + 48.0), title);
    svg.text((12.0, 24.0), 16.0, Anchor::Start, "black", title);
    let mut at = across.0;
    for (name, fill) in names.iter().zip(FILLS) {
        svg.rect((at, 42.0), (BAR, BAR), fill);
        svg.text((at + BAR + 6.0, 52.0), TEXT, Anchor::Start, "black", name);
        at += BAR + 30.0 + text_width(name, TEXT);
    }
    for (value, text) in layout.axis.ticks() {
        let x = place(&layout.axis, across, value);
        svg.line(&[(x, HEAD), (x, bottom)], LIGHT, 1.0);
        svg.text((x, bottom + 17.0), TEXT, Anchor::Middle, GRAY, &text);
    }
    svg.text(((across.0 + across.1) / 2.0, bottom + 36.0), TEXT, Anchor::Middle, GRAY, axis);
    for (pair, bars) in pairs.iter().zip(&layout.bars) {
        let middle = (across.0 - 8.0, bars[1].top + 4.5);
        svg.text(middle, TEXT, Anchor::End, "black", &short(&pair.name));
        for ((bar, value), fill) in bars.iter().zip(pair.values).zip(FILLS) {
            if value.is_finite() {
                svg.rect((bar.left, bar.top), (bar.width, BAR), fill);
                let end = (bar.left + bar.width + 5.0, bar.top + BAR - 1.5);
                svg.text(end, 11.0, Anchor::Start, GRAY, &format!("{value:.1}"));
            }
        }
    }
    let zero = place(&layout.axis, across, 0.0);
    svg.line(&[(zero, HEAD), (zero, bottom)], GRAY, 1.0);
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_begin_at_zero_and_everybody_has_two() {
        let names = ["ann", "bob", "play/SOMEBODY WITH A NAME THAT HAS NO END"];
        let pairs = names.map(|name| Pair { name: name.into(), values: [44.0, 58.5] });
        let layout = Layout::of(&pairs);
        let zero = place(&layout.axis, layout.across, 0.0);
        assert_eq!((layout.axis.low, zero, layout.bars.len()), (0.0, layout.across.0, 3));
        for [before, after] in &layout.bars {
            assert_eq!([before.left, after.left], [zero; 2]);
            assert!((before.width / after.width - 44.0 / 58.5).abs() < 1e-12);
            assert!(after.left + after.width <= layout.across.1 + 1e-9);
            assert!(after.top >= before.top + BAR);
        }
        let tops: Vec<f64> = layout.bars.iter().flatten().map(|bar| bar.top).collect();
        assert!(tops.windows(2).all(|pair| pair[1] - pair[0] >= BAR), "{tops:?}");
        let svg = draw(("Gain & more", "%"), ["before", "after"], &pairs);
        for text in ["Gain &amp; more", "before", "after", ">ann<", ">bob<", "NAME THAT …"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert_eq!((svg.matches(">44.0<").count(), svg.matches(">58.5<").count()), (3, 3));
        for fill in FILLS {
            // One of them is in the legend.
            assert_eq!(svg.matches(&format!("fill=\"{fill}\"")).count(), 1 + 3);
        }
    }

    #[test]
    fn what_is_below_zero_goes_the_other_way() {
        let pairs = [Pair { name: "x".into(), values: [-2.0, 4.0] }];
        let layout = Layout::of(&pairs);
        let [[before, after]] = layout.bars.try_into().unwrap();
        assert!(layout.axis.low <= -2.0 && before.left < after.left);
        assert!((before.left + before.width - after.left).abs() < 1e-9);
        let none = [Pair { name: "x".into(), values: [f64::NAN, 4.0] }];
        assert!(!draw(("", ""), ["", ""], &none).contains("NaN"));
        assert!(draw(("nobody", ""), ["", ""], &[]).contains("nobody"));
    }
}
