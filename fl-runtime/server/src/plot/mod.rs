//! Plots of numbers over rounds, as SVG, and what other pictures are made of: a picture
//! ([`Svg`]), axes with round numbers ([`Axis`]), and labels that leave each other room
//! ([`apart`]).
//!
//! ```
//! use tern_server::plot::{Panel, Series, draw};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("loss.svg");
//! let points = [(1.0, 2.3), (2.0, 1.1), (3.0, 0.7)];
//! let series = vec![Series { name: "training", points: &points }];
//! draw(&path, &[Panel { title: "Loss", axes: ("round", "loss"), series }])?;
//! assert!(std::fs::read_to_string(&path)?.starts_with("<svg"));
//! # Ok(())
//! # }
//! ```

mod axis;
mod labels;
mod svg;

use std::path::Path;

use tern_protocol::{Error, Result};

pub use axis::Axis;
pub use labels::apart;
pub use svg::{Anchor, COLORS, GRAY, LIGHT, Mark, Svg, text_width};

/// A line of a plot. Points that are not finite are left out.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// Its name, at its end where there are several.
    pub name: &'a str,
    /// (x, y), in the order of x.
    pub points: &'a [(f64, f64)],
}

/// Lines over common axes.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// Above the lines.
    pub title: &'a str,
    /// Names of the axes.
    pub axes: (&'a str, &'a str),
    /// The lines.
    pub series: Vec<Series<'a>>,
}

/// Width of a plot, pixels.
const WIDTH: f64 = 800.0;
/// Size of text, pixels.
const TEXT: f64 = 13.0;
/// Between the base lines of two labels, pixels.
const GAP: f64 = 16.0;
/// Widest that labels of lines are; the rest of a name is left out.
const LABELS: f64 = 260.0;
/// From a line's end to its label.
const LEADER: f64 = 18.0;
/// Lines of at most so many points have a dot at each.
const DOTS: usize = 24;

/// Draws panels, one below the other, to a file.
///
/// # Errors
/// [`Error::File`] if it can't be written.
pub fn draw(path: &Path, panels: &[Panel<'_>]) -> Result<()> {
    let mut top = 0.0;
    let mut layouts = Vec::new();
    for panel in panels {
        // One panel has more room than each of several.
        let height = if panels.len() == 1 { 440.0 } else { 320.0 };
        let layout = Layout::of(panel, top, height);
        top = layout.end;
        layouts.push(layout);
    }
    let titles: Vec<_> = panels.iter().map(|panel| panel.title).collect();
    let mut svg = Svg::new((WIDTH, top.max(1.0)), &titles.join("; "));
    layouts.iter().for_each(|layout| layout.draw(&mut svg));
    std::fs::write(path, svg.finish()).map_err(|reason| Error::file(path, reason))
}

/// Where everything of a panel is.
struct Layout<'a> {
    panel: &'a Panel<'a>,
    /// Points of the lines that are finite.
    lines: Vec<Vec<(f64, f64)>>,
    x: Axis,
    y: Axis,
    /// Left and right end of the lines' area.
    across: (f64, f64),
    /// Its top and bottom.
    down: (f64, f64),
    /// Names of the lines and the heights of their base lines; none for a single line, which the
    /// title names.
    labels: Vec<(String, f64)>,
    /// Where the panel begins and ends.
    start: f64,
    end: f64,
}

impl<'a> Layout<'a> {
    fn of(panel: &'a Panel<'a>, start: f64, height: f64) -> Self {
        let finite = |series: &Series<'_>| -> Vec<(f64, f64)> {
            let points = series.points.iter().copied();
            points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
        };
        let lines: Vec<_> = panel.series.iter().map(finite).collect();
        let all = || lines.iter().flatten();
        let x = across(all().map(|point| point.0));
        let y = Axis::of(all().map(|point| point.1), 5).rounded();

        let named = if panel.series.len() > 1 { panel.series.as_slice() } else { &[] };
        let names = named.iter().zip(&lines).map(|(series, line)| match line.is_empty() {
            true => format!("{} (none)", series.name),
            false => series.name.to_owned(),
        });
        let names: Vec<String> = names.map(|name| cut(&name, LABELS)).collect();
        let right = match widest(&names) {
            0.0 => WIDTH - 32.0,
            labels => WIDTH - 8.0 - labels - LEADER,
        };
        let left = 20.0 + widest(y.ticks().into_iter().map(|(_, text)| text));
        let down = (start + 56.0, start + 56.0 + (height - 106.0).max(GAP * names.len() as f64));
        let mut layout = Layout {
            panel,
            lines,
            x,
            y,
            across: (left, right),
            down,
            labels: Vec::new(),
            start,
            end: down.1 + 50.0,
        };
        let end = |line: &Vec<_>| line.last().map_or(down.1, |point| layout.place(*point).1);
        let ends: Vec<_> = layout.lines.iter().take(names.len()).map(end).collect();
        let places = apart(&ends, GAP, down);
        layout.labels = names.into_iter().zip(places).collect();
        layout
    }

    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let ((left, right), (top, bottom)) = (self.across, self.down);
        (left + (right - left) * self.x.share(x), bottom - (bottom - top) * self.y.share(y))
    }

    fn draw(&self, svg: &mut Svg) {
        let ((left, right), (_, bottom)) = (self.across, self.down);
        let (across, up) = self.panel.axes;
        svg.text((12.0, self.start + 24.0), 16.0, Anchor::Start, "black", self.panel.title);
        if up != self.panel.title {
            svg.text((12.0, self.start + 44.0), TEXT, Anchor::Start, GRAY, up);
        }
        for (value, text) in self.y.ticks() {
            let (_, y) = self.place((self.x.low, value));
            svg.line(&[(left, y), (right, y)], LIGHT, 1.0);
            svg.text((left - 8.0, y + 4.5), TEXT, Anchor::End, GRAY, &text);
        }
        svg.line(&[(left, bottom), (right, bottom)], GRAY, 1.0);
        for (value, text) in self.x.ticks() {
            let (x, _) = self.place((value, self.y.low));
            svg.line(&[(x, bottom), (x, bottom + 4.0)], GRAY, 1.0);
            svg.text((x, bottom + 18.0), TEXT, Anchor::Middle, GRAY, &text);
        }
        svg.text(((left + right) / 2.0, bottom + 37.0), TEXT, Anchor::Middle, GRAY, across);
        for (line, color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let places: Vec<_> = line.iter().map(|point| self.place(*point)).collect();
            svg.line(&places, color, 2.0);
            if places.len() <= DOTS {
                places.iter().for_each(|place| svg.mark(Mark::Circle, *place, 2.5, color));
            }
        }
        let colors = COLORS.iter().cycle();
        for (((name, y), line), color) in self.labels.iter().zip(&self.lines).zip(colors) {
            let label = right + LEADER;
            if let Some(last) = line.last() {
                let end = self.place(*last);
                // At the line's height as far as the others go, then to the label.
                let leader = [end, (right, end.1), (label - 4.0, *y)];
                svg.leader(&leader, color);
            }
            svg.text((label, y + 4.5), TEXT, Anchor::Start, color, name);
        }
    }
}

/// The axis of what goes on, as rounds do: from the beginning, unless the lines are far from it.
fn across(values: impl Iterator<Item = f64> + Clone) -> Axis {
    let first = values.clone().fold(f64::INFINITY, f64::min);
    let last = values.clone().fold(f64::NEG_INFINITY, f64::max);
    let beginning = (0.0 < first && first < 0.75 * last).then_some(0.0);
    Axis::of(values.chain(beginning), 7)
}

/// Width of the widest text.
fn widest(texts: impl IntoIterator<Item = impl AsRef<str>>) -> f64 {
    texts.into_iter().map(|text| text_width(text.as_ref(), TEXT)).fold(0.0, f64::max)
}

/// A text's beginning, in so many pixels.
fn cut(text: &str, most: f64) -> String {
    if text_width(text, TEXT) <= most {
        return text.to_owned();
    }
    let mut shorter = text.to_owned();
    while !shorter.is_empty() && text_width(&shorter, TEXT) + TEXT > most {
        shorter.pop();
    }
    shorter + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_name_what_they_show_and_leave_out_what_is_not_finite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.svg");
        let loss = [(1.0, 4.0), (2.0, f64::NAN), (3.0, 3.0)];
        let panels = [
            Panel {
                title: "Loss & more",
                axes: ("round", "loss"),
                series: vec![
                    Series { name: "training", points: &loss },
                    Series { name: "evaluation", points: &[] },
                ],
            },
            Panel { title: "Nothing", axes: ("round", "bytes"), series: Vec::new() },
        ];
        draw(&path, &panels).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for text in ["Loss &amp; more", "training", "evaluation", "round", "Nothing", "</svg>"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(!svg.contains("NaN"));
        let error = draw(&folder.path().join("no/plot.svg"), &panels).unwrap_err();
        assert!(error.to_string().contains("plot.svg"), "{error}");
        draw(&path, &[]).unwrap();
    }

    #[test]
    fn lines_have_their_names_at_their_ends_without_overlap() {
        // Many lines that end at nearly the same height, of which one ends early.
        let lines: Vec<Vec<(f64, f64)>> = (0..8u32)
            .map(|line| {
                let rounds = if line == 3 { 20 } else { 60 };
                let y = |round: u32| 60.0 - 40.0 / f64::from(round) + 0.1 * f64::from(line);
                (1..=rounds).map(|round| (f64::from(round), y(round))).collect()
            })
            .collect();
        let names: Vec<String> =
            (0..8).map(|line| format!("{}{line}", "way ".repeat(9 * line))).collect();
        let series = names.iter().zip(&lines).map(|(name, points)| Series { name, points });
        let panel = Panel { title: "Accuracy", axes: ("round", "%"), series: series.collect() };
        let layout = Layout::of(&panel, 100.0, 320.0);
        let (top, bottom) = layout.down;
        let mut heights: Vec<f64> = layout.labels.iter().map(|label| label.1).collect();
        heights.sort_by(f64::total_cmp);
        assert_eq!(heights.len(), 8);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= TEXT), "{heights:?}");
        assert!(top <= heights[0] && heights[7] <= bottom + 1e-9, "{heights:?}");
        for (name, _) in &layout.labels {
            let end = layout.across.1 + LEADER + text_width(name, TEXT);
            assert!(end <= WIDTH, "{name} ends at {end}");
        }
        assert!(layout.labels[7].0.ends_with('…'));
        // All that is drawn of the lines is in their area, and the axis isn't below zero.
        for place in layout.lines.iter().flatten().map(|point| layout.place(*point)) {
            assert!((layout.across.0 - 1e-6..=layout.across.1 + 1e-6).contains(&place.0));
            assert!((top - 1e-6..=bottom + 1e-6).contains(&place.1), "{place:?}");
        }
        assert!(layout.y.low >= 0.0 && layout.y.high <= 100.0);
        for (first, last, low) in [(20_245.0, 40_290.0, 0.0), (1.0, 60.0, 0.0), (80.0, 99.0, 80.0)]
        {
            assert_eq!(across([first, last].into_iter()).low, low);
        }
        // More lines than the height has room for make the panel higher.
        let many = Panel { series: panel.series.repeat(5), ..panel.clone() };
        let layout = Layout::of(&many, 0.0, 320.0);
        let mut heights: Vec<f64> = layout.labels.iter().map(|label| label.1).collect();
        heights.sort_by(f64::total_cmp);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= TEXT), "{heights:?}");
    }
}
