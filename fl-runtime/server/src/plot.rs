//! Plots of numbers over rounds, as SVG.
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

use std::path::Path;

use plotters::prelude::*;

use tern_protocol::{Error, Result};

/// A line of a plot. Points that are not finite are left out.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// Its name in the legend.
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
const WIDTH: u32 = 800;

/// Draws panels, one below the other, to a file.
///
/// # Errors
/// [`Error::File`] if it can't be written.
pub fn draw(path: &Path, panels: &[Panel<'_>]) -> Result<()> {
    let count = panels.len().max(1);
    // One panel has more room than each of several.
    let height = if count == 1 { 480 } else { 320 * count as u32 };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = root.fill(&WHITE).map_err(|e| Error::file(path, e)).and_then(|()| {
            let areas = root.split_evenly((count, 1));
            panels.iter().zip(&areas).try_for_each(|(p, area)| {
                panel(area, p).map_err(|reason| Error::file(path, reason))
            })
        });
        drawn?;
        root.present().map_err(|e| Error::file(path, e))?;
    }
    std::fs::write(path, svg).map_err(|reason| Error::file(path, reason))
}

fn panel<D: DrawingBackend>(
    area: &DrawingArea<D, plotters::coord::Shift>,
    panel: &Panel<'_>,
) -> std::result::Result<(), DrawingAreaErrorKind<D::ErrorType>> {
    let finite = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let lines: Vec<_> = panel.series.iter().map(|s| (s.name, finite(s.points))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter());
    let (left, right) = range(all().map(|p| p.0));
    let (low, high) = range(all().map(|p| p.1));
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 18))
        .margin(12)
        // Room for half of the last label.
        .margin_right(32)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(left..right, low..high)?;
    // Without the ".0" of whole numbers and the last digits of inexact ones.
    let tick = |value: &f64| match value.abs() >= 1e7 {
        true => format!("{value:.2e}"),
        false => format!("{}", (value * 1e6).round() / 1e6),
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(panel.axes.0)
        .y_desc(panel.axes.1)
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .draw()?;
    let points: Vec<_> = all().map(|(x, y)| place(*x, *y, (left, right), (low, high))).collect();
    let corner = free_corner(&points);
    for (at, (name, points)) in lines.into_iter().enumerate() {
        let style = Palette99::pick(at).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    if panel.series.len() > 1 {
        chart
            .configure_series_labels()
            .position(corner)
            .border_style(BLACK)
            .background_style(WHITE.mix(0.75))
            .draw()?;
    }
    Ok(())
}

/// Least and greatest value, apart even where there is one value or none: the ends of an axis.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low < high {
        (low, high)
    } else if low.is_finite() {
        (low - 0.5, low + 0.5)
    } else {
        (0.0, 1.0)
    }
}

/// Where a point is between the least and the greatest, from 0 to 1.
fn place(x: f64, y: f64, width: (f64, f64), height: (f64, f64)) -> (f64, f64) {
    let share = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low);
    (share(x, width), share(y, height))
}

/// The corner that hides fewest points under a legend.
fn free_corner(points: &[(f64, f64)]) -> SeriesLabelPosition {
    use SeriesLabelPosition::{LowerLeft, LowerRight, UpperLeft, UpperRight};
    let corners = [
        (UpperRight, (1.0, 1.0)),
        (UpperLeft, (0.0, 1.0)),
        (LowerRight, (1.0, 0.0)),
        (LowerLeft, (0.0, 0.0)),
    ];
    let hidden = |(x, y): (f64, f64)| {
        points.iter().filter(|p| (p.0 - x).abs() < 0.35 && (p.1 - y).abs() < 0.3).count()
    };
    let free = corners.into_iter().min_by_key(|(_, at)| hidden(*at));
    free.map_or(UpperRight, |(corner, _)| corner)
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
    }

    #[test]
    fn a_legend_goes_where_no_line_is() {
        use SeriesLabelPosition::{LowerLeft, UpperLeft, UpperRight};
        let line = |y: fn(f64) -> f64| -> Vec<_> {
            (0..=20).map(|i| f64::from(i) / 20.0).map(|x| (x, y(x))).collect()
        };
        assert!(matches!(free_corner(&line(|x| 1.0 - x)), UpperRight));
        assert!(matches!(free_corner(&line(|x| x)), UpperLeft));
        let both = [line(|x| x), line(|_| 1.0), line(|_| 0.0)[7..].to_vec()].concat();
        assert!(!matches!(free_corner(&both), UpperLeft | UpperRight));
        assert!(matches!(free_corner(&[(0.9, 0.9), (0.1, 0.9), (0.9, 0.1)]), LowerLeft));
    }
}
