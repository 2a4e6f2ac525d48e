//! Clouds of points in many dimensions, as a picture in two.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tern_fl::server::plot::{Anchor, GRAY, LIGHT, Mark, Svg};

use crate::report::Report;

/// Passes of the power iteration; two directions that matter are apart by then.
const PASSES: usize = 200;

/// Of classes: ten that can be told apart.
const CLASSES: [&str; 10] = [
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#222222",
    "#b5a800", "#17becf",
];
/// Of clouds.
const MARKS: [Mark; 2] = [Mark::Circle, Mark::Triangle];
/// Half the width of a mark, pixels.
const RADIUS: f64 = 3.4;
/// Width of a panel.
const PANEL: f64 = 440.0;
/// Width of the legend.
const LEGEND: f64 = 110.0;
/// Size of text.
const TEXT: f64 = 13.0;

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
    /// The class of each.
    pub classes: Vec<u32>,
}

/// Draws panels side by side as SVG, each with a title and its clouds: a cloud is a shape, a class
/// a color. Returns the path.
pub fn scatter(
    report: &Report,
    file: &str,
    title: &str,
    panels: &[(&str, Vec<Cloud>)],
) -> Result<PathBuf> {
    let path = report.path(file);
    let svg = draw(title, panels);
    std::fs::write(&path, svg).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn draw(title: &str, panels: &[(&str, Vec<Cloud>)]) -> String {
    let legend = PANEL * panels.len() as f64 + 20.0;
    let mut svg = Svg::new((legend + LEGEND, PANEL + 44.0), title);
    svg.text((12.0, 24.0), 16.0, Anchor::Start, "black", title);
    for (at, (name, clouds)) in panels.iter().enumerate() {
        let left = 12.0 + PANEL * at as f64;
        svg.text((left, 46.0), TEXT, Anchor::Start, GRAY, name);
        let (top, side) = (54.0, PANEL - 22.0);
        let corners = [(0.0, 0.0), (side, 0.0), (side, side), (0.0, side), (0.0, 0.0)];
        svg.line(&corners.map(|(x, y)| (left + x, top + y)), LIGHT, 1.0);
        let most = clouds
            .iter()
            .flat_map(|cloud| &cloud.points)
            .flat_map(|(x, y)| [x.abs(), y.abs()])
            .fold(1e-9, f64::max);
        let place = |(x, y): (f64, f64)| {
            let scale = 0.48 * side / most;
            (left + side / 2.0 + scale * x, top + side / 2.0 - scale * y)
        };
        for (cloud, mark) in clouds.iter().zip(MARKS.iter().cycle()) {
            for (point, class) in cloud.points.iter().zip(&cloud.classes) {
                svg.mark(*mark, place(*point), RADIUS, color(*class));
            }
        }
    }
    // Shapes, then colors.
    let mut y = 70.0;
    let mut entry = |mark: Mark, color: &str, name: &str| {
        svg.mark(mark, (legend, y - 4.5), 5.0, color);
        svg.text((legend + 14.0, y), TEXT, Anchor::Start, "black", name);
        y += 20.0;
    };
    let all = || panels.iter().flat_map(|(_, clouds)| clouds);
    let mut names: Vec<&str> = Vec::new();
    for cloud in all() {
        if !names.contains(&cloud.name.as_str()) {
            names.push(&cloud.name);
        }
    }
    for (name, mark) in names.into_iter().zip(MARKS.iter().cycle()) {
        entry(*mark, GRAY, name);
    }
    let classes: BTreeSet<u32> = all().flat_map(|cloud| cloud.classes.iter().copied()).collect();
    for class in classes {
        entry(Mark::Circle, color(class), &format!("class {class}"));
    }
    svg.finish()
}

fn color(class: u32) -> &'static str {
    CLASSES[class as usize % CLASSES.len()]
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
    fn a_picture_names_its_panels_clouds_and_classes() {
        let folder = tempfile::tempdir().unwrap();
        let report = Report::create(folder.path()).unwrap();
        let cloud = |name: &str, classes: &[u32]| Cloud {
            name: name.into(),
            points: (0..classes.len()).map(|at| (at as f64 - 4.0, 0.5)).collect(),
            classes: classes.to_vec(),
        };
        let all: Vec<u32> = (0..10).collect();
        let panels = [
            ("before", vec![cloud("source", &all), cloud("target", &[3, 3, 7])]),
            ("after", vec![]),
        ];
        let path = scatter(&report, "features.svg", "Features", &panels).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for text in ["Features", "before", "after"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        // Once each, whatever the number of panels and points.
        let names = all.iter().map(|class| format!("class {class}"));
        for name in names.chain(["source".into(), "target".into()]) {
            assert_eq!(svg.matches(&format!(">{name}<")).count(), 1, "{name}");
        }
        // A point of a class is of its color, one of a cloud of its shape; each is in the legend.
        assert_eq!(svg.matches("<circle").count(), 10 + 1 + 10);
        assert_eq!(svg.matches("<path").count(), 3 + 1);
        assert_eq!(svg.matches(CLASSES[3]).count(), 1 + 2 + 1);
        assert_eq!(svg.matches(CLASSES[7]).count(), 1 + 1 + 1);
    }
}
