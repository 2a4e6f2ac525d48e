//! Clouds of points in many dimensions, as a picture in two.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::Report;

/// Passes of the power iteration; two directions that matter are apart by then.
const PASSES: usize = 200;

/// Of clouds: blue, orange and green that most people can tell apart (Okabe and Ito 2008).
const COLORS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];

/// The plane through rows of `width` numbers in which they spread most: their principal
/// components.
pub struct Plane {
    mean: Vec<f64>,
    axes: [Vec<f64>; 2],
}

impl Plane {
    /// Of rows.
    pub fn of(rows: &[f32], width: usize) -> Self {
        let count = (rows.len() / width).max(1) as f64;
        let mut mean = vec![0.0; width];
        for row in rows.chunks(width) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / count);
        }
        let mut plane = Plane { mean, axes: [vec![0.0; width], vec![0.0; width]] };
        for at in 0..2 {
            let mut axis: Vec<f64> = (0..width).map(|i| 1.0 + (i * i % 7) as f64).collect();
            for _ in 0..PASSES {
                plane.clear(&mut axis, at);
                // The covariance times the axis.
                let mut next = vec![0.0; width];
                for row in rows.chunks(width) {
                    let along = plane.along(row, &axis);
                    let centered = row.iter().zip(&plane.mean);
                    next.iter_mut().zip(centered).for_each(|(n, (x, m))| {
                        *n += along * (f64::from(*x) - m);
                    });
                }
                axis = next;
            }
            plane.clear(&mut axis, at);
            plane.axes[at] = axis;
        }
        plane
    }

    /// Takes the first axes out, and scales the rest to length 1.
    fn clear(&self, axis: &mut [f64], found: usize) {
        for other in &self.axes[..found] {
            let dot: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
            axis.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
        }
        let length = axis.iter().map(|a| a * a).sum::<f64>().sqrt().max(1e-300);
        axis.iter_mut().for_each(|a| *a /= length);
    }

    fn along(&self, row: &[f32], axis: &[f64]) -> f64 {
        row.iter().zip(&self.mean).zip(axis).map(|((x, m), a)| (f64::from(*x) - m) * a).sum()
    }

    /// Where rows are in the plane.
    pub fn project(&self, rows: &[f32]) -> Vec<(f64, f64)> {
        let [x, y] = &self.axes;
        rows.chunks(self.mean.len()).map(|row| (self.along(row, x), self.along(row, y))).collect()
    }
}

/// A cloud of points by name.
pub struct Cloud {
    /// Its name in the legend.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// Draws panels side by side as SVG, each with a title and its clouds; returns the path.
pub fn scatter(
    report: &Report,
    file: &str,
    title: &str,
    panels: &[(&str, Vec<Cloud>)],
) -> Result<PathBuf> {
    let path = report.path(file);
    draw(&path, title, panels).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    Ok(path)
}

fn draw(
    path: &Path,
    title: &str,
    panels: &[(&str, Vec<Cloud>)],
) -> Result<(), Box<dyn std::error::Error>> {
    let size = (480 * panels.len().max(1) as u32, 480);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let body = root.titled(title, ("sans-serif", 20))?;
    for (area, (name, clouds)) in body.split_evenly((1, panels.len().max(1))).iter().zip(panels) {
        let most = clouds
            .iter()
            .flat_map(|cloud| &cloud.points)
            .flat_map(|(x, y)| [x.abs(), y.abs()])
            .fold(1e-9, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(name, ("sans-serif", 16))
            .margin(12)
            // Room for the legend.
            .build_cartesian_2d(-most..most, -1.3 * most..most)?;
        chart.configure_mesh().disable_mesh().disable_axes().draw()?;
        for (at, cloud) in clouds.iter().enumerate() {
            let style = COLORS[at % COLORS.len()].mix(0.6).filled();
            let dots = cloud.points.iter().map(|point| Circle::new(*point, 3, style));
            chart
                .draw_series(dots)?
                .label(cloud.name.as_str())
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .border_style(BLACK)
            .background_style(WHITE)
            .draw()?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plane_holds_what_spreads_most() {
        // Far along (1, 1, 0), less along (1, −1, 0), hardly along the third.
        let rows: Vec<f32> = (0..100)
            .flat_map(|i| {
                let (a, b, c) = (i as f32 - 50.0, (i * 37 % 11) as f32, (i % 2) as f32 * 0.01);
                [a + b + 7.0, a - b, c]
            })
            .collect();
        let plane = Plane::of(&rows, 3);
        let [x, y] = &plane.axes;
        let half = 0.5f64.sqrt();
        assert!((x[0].abs() - half).abs() < 0.02 && (x[1] - x[0]).abs() < 0.04, "{x:?}");
        assert!((y[0] + y[1]).abs() < 0.04 && y[2].abs() < 0.01, "{y:?}");
        let points = plane.project(&rows);
        let mean = points.iter().map(|p| p.0 + p.1).sum::<f64>() / 100.0;
        assert!(mean.abs() < 1e-3, "{mean}");
    }

    #[test]
    fn a_picture_names_its_panels_and_clouds() {
        let folder = tempfile::tempdir().unwrap();
        let report = Report::create(folder.path()).unwrap();
        let cloud = |name: &str| Cloud { name: name.into(), points: vec![(1.0, 2.0), (-1.0, 0.5)] };
        let panels = [("before", vec![cloud("source"), cloud("target")]), ("after", vec![])];
        let path = scatter(&report, "features.svg", "Features", &panels).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for text in ["Features", "before", "after", "source", "target", "<circle"] {
            assert!(svg.contains(text), "{text} is missing");
        }
    }
}
