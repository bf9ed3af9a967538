//! Figures, as SVG files.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor, SVGBackend, WHITE,
};

const SIZE: (u32, u32) = (820, 460);
const FONT: &str = "sans-serif";
/// Told apart by those who do not see all colours (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Curves over one another. Both axes count; the vertical one is logarithmic, the horizontal one if it says so.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// The name of the file, without its ending.
    pub(crate) file: &'static str,
    pub(crate) title: String,
    pub(crate) horizontal: &'static str,
    pub(crate) vertical: &'static str,
    pub(crate) logarithmic: bool,
    pub(crate) curves: Vec<Curve>,
}

/// One curve.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Figure {
    /// Draws it into that directory.
    pub(crate) fn draw(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(format!("{}.svg", self.file));
        self.draw_to(&path).map_err(|error| anyhow!("{} cannot be drawn: {error}", path.display()))
    }

    fn draw_to(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let Some((x, y)) = self.bounds() else { return Ok(()) };
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder.caption(&self.title, (FONT, 18)).margin(12).x_label_area_size(42).y_label_area_size(64);
        // The two kinds of axis are two types, so the rest is written for either.
        macro_rules! draw {
            ($range:expr) => {{
                let mut chart = builder.build_cartesian_2d($range, (y.0..y.1).log_scale())?;
                let mut mesh = chart.configure_mesh();
                mesh.x_desc(self.horizontal).y_desc(self.vertical).label_style((FONT, 13)).axis_desc_style((FONT, 14));
                mesh.light_line_style(WHITE).bold_line_style(BLACK.mix(0.12)).x_labels(10);
                mesh.x_label_formatter(&|value| short(*value)).y_label_formatter(&|value| short(*value)).draw()?;
                for (curve, colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
                    let style = colour.stroke_width(2);
                    chart
                        .draw_series(LineSeries::new(curve.points.iter().copied(), style).point_size(2))?
                        .label(curve.name.clone())
                        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
                }
                chart
                    .configure_series_labels()
                    .position(plotters::chart::SeriesLabelPosition::UpperLeft)
                    .background_style(WHITE.mix(0.8))
                    .border_style(BLACK.mix(0.3))
                    .label_font((FONT, 13))
                    .draw()?;
            }};
        }
        match self.logarithmic {
            true => draw!((x.0..x.1).log_scale()),
            false => draw!(x.0..x.1),
        }
        area.present()?;
        Ok(())
    }

    /// From where to where the points lie, with some room. `None` if there are none.
    fn bounds(&self) -> Option<((f64, f64), (f64, f64))> {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let bound = |of: fn(&(f64, f64)) -> f64, pick: fn(f64, f64) -> f64| points().map(of).reduce(pick);
        let (left, right) = (bound(|point| point.0, f64::min)?, bound(|point| point.0, f64::max)?);
        let (low, high) = (bound(|point| point.1, f64::min)?, bound(|point| point.1, f64::max)?);
        let x = match self.logarithmic {
            true => with_two_decades(left, right * 1.02),
            false => (0.0, right.max(1e-9) * 1.02),
        };
        Some((x, with_two_decades(low.max(1e-3) * 0.8, high.max(1e-3) * 1.6)))
    }
}

/// The bounds of a logarithmic axis, widened so that at least two powers of ten lie within: only those have numbers.
fn with_two_decades(low: f64, high: f64) -> (f64, f64) {
    let (mut low, mut high) = (low, high);
    loop {
        let (first, last) = (low.log10().ceil(), high.log10().floor());
        if last > first {
            return (low, high);
        }
        let (below, above) = (10_f64.powf(first - 1.0), 10_f64.powf(last + 1.0));
        // Whichever takes less room.
        if low / below < above / high { low = below } else { high = above }
    }
}

/// A number on an axis.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => format!("{}", (value * 1e3).round() / 1e3),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_figure_is_drawn_with_its_words_and_curves() {
        let directory = tempfile::tempdir().unwrap();
        for logarithmic in [false, true] {
            let curves = vec![Curve { name: "ours".to_owned(), points: vec![(1_000.0, 0.5), (20_000.0, 9.0)] }];
            let figure = Figure {
                file: "figure",
                title: "A title".to_owned(),
                horizontal: "changes/s",
                vertical: "ms",
                logarithmic,
                curves,
            };
            figure.draw(directory.path()).unwrap();
            let drawn = std::fs::read_to_string(directory.path().join("figure.svg")).unwrap();
            for word in ["A title", "changes/s", "ours", "<polyline"] {
                assert!(drawn.contains(word), "{word}");
            }
        }
    }

    #[test]
    fn an_axis_has_two_numbers_at_least() {
        for (low, high) in [(17_000.0, 90_000.0), (0.8, 16.0), (2.0, 3.0), (0.5, 2_000.0), (10.0, 100.0), (1.0, 1.0)] {
            let (from, to) = with_two_decades(low, high);
            assert!(from <= low && to >= high);
            assert!(to.log10().floor() - from.log10().ceil() >= 1.0, "{from} .. {to}");
        }
        assert_eq!(with_two_decades(0.5, 2_000.0), (0.5, 2_000.0), "there are enough");
    }

    #[test]
    fn a_figure_without_points_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let (file, title) = ("figure", String::new());
        let figure = Figure { file, title, horizontal: "", vertical: "", logarithmic: true, curves: Vec::new() };
        figure.draw(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
