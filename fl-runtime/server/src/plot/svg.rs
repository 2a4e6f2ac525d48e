//! Pictures as SVG.

use std::fmt::Write;

/// Colors that most people can tell apart, dark enough for text on white (after Okabe and Ito
/// 2008).
pub const COLORS: [&str; 8] =
    ["#0072b2", "#d55e00", "#00805d", "#a0478f", "#8a6d00", "#1a1a1a", "#7a4a3a", "#555555"];

/// Of names and numbers at axes.
pub const GRAY: &str = "#555555";

/// Of lines behind what is shown.
pub const LIGHT: &str = "#e2e2e2";

/// Which point of a text stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// A small shape at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A filled circle.
    Circle,
    /// A triangle's outline, its tip up.
    Triangle,
}

/// Columns of pixels that a text takes in a sans-serif font, or a little less.
pub fn text_width(text: &str, size: f64) -> f64 {
    // Characters of East Asian scripts are as wide as they are high.
    let em = |c: char| if c >= '\u{1100}' { 1.0 } else { 0.6 };
    size * text.chars().map(em).sum::<f64>()
}

/// A picture that grows by what is drawn; places are pixels from its left upper corner.
///
/// ```
/// use tern_server::plot::{Anchor, Svg};
///
/// let mut svg = Svg::new((200.0, 100.0), "A line");
/// svg.line(&[(10.0, 90.0), (190.0, 20.0)], "#0072b2", 2.0);
/// svg.text((100.0, 14.0), 12.0, Anchor::Middle, "black", "A < B");
/// assert!(svg.finish().contains("A &lt; B"));
/// ```
#[derive(Clone, Debug)]
pub struct Svg(String);

impl Svg {
    /// A white picture of this width and height; what it shows, for who can't see it.
    pub fn new((width, height): (f64, f64), title: &str) -> Self {
        let head = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" \
             height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
             font-family=\"Helvetica, Arial, sans-serif\">\n<title>{}</title>\n",
            escaped(title)
        );
        let mut svg = Svg(head);
        svg.rect((0.0, 0.0), (width, height), "white");
        svg
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // A string can always be written to.
        let _ = self.0.write_fmt(element);
        self.0.push('\n');
    }

    /// A line through points.
    pub fn line(&mut self, points: &[(f64, f64)], color: &str, width: f64) {
        self.polyline(points, color, format_args!("stroke-width=\"{width}\""));
    }

    /// A thin line of dots through points, which leads from one thing to another.
    pub fn leader(&mut self, points: &[(f64, f64)], color: &str) {
        self.polyline(points, color, format_args!("stroke-dasharray=\"1.5 2.5\""));
    }

    fn polyline(&mut self, points: &[(f64, f64)], color: &str, style: std::fmt::Arguments<'_>) {
        let places: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" {style} \
             stroke-linejoin=\"round\"/>",
            places.join(" ")
        ));
    }

    /// A filled rectangle: its left upper corner, its width and height.
    pub fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), color: &str) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{color}\"/>"
        ));
    }

    /// A shape around a point.
    pub fn mark(&mut self, mark: Mark, (x, y): (f64, f64), radius: f64, color: &str) {
        match mark {
            Mark::Circle => self.add(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{color}\"/>"
            )),
            Mark::Triangle => {
                let (left, right) = (x - radius, x + radius);
                let (top, bottom) = (y - 1.1 * radius, y + 0.8 * radius);
                self.add(format_args!(
                    "<path d=\"M{left:.1},{bottom:.1}H{right:.1}L{x:.1},{top:.1}Z\" \
                     fill=\"white\" fill-opacity=\"0.6\" stroke=\"{color}\" stroke-width=\"1.3\"/>"
                ));
            }
        }
    }

    /// A text of a size in pixels; its place is on its base line.
    pub fn text(&mut self, (x, y): (f64, f64), size: f64, anchor: Anchor, color: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" \
             fill=\"{color}\">{}</text>",
            escaped(text)
        ));
    }

    /// The text of a file.
    pub fn finish(mut self) -> String {
        self.0 += "</svg>\n";
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
