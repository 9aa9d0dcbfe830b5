//! Pictures: nanoseconds a packet against what grows.

use super::report::{Course, Results};
use anyhow::Result;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (900, 480);
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 110, 200),
    RGBColor(120, 180, 230),
    RGBColor(200, 0, 0),
    RGBColor(240, 150, 150),
    RGBColor(0, 150, 60),
    RGBColor(130, 200, 150),
];
/// Nanoseconds, on a scale of powers.
const RANGE: [f64; 2] = [5.0, 20_000.0];

/// One for each axis.
pub(crate) fn draw(results: &Results, folder: &Path) -> Result<()> {
    results
        .courses
        .iter()
        .try_for_each(|course| draw_one(course, folder))
}

fn draw_one(course: &Course, folder: &Path) -> Result<()> {
    let path = folder.join(format!("{}.svg", course.axis.name()));
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let costs = course.lines.iter().flat_map(|line| &line.costs);
    let most = costs.map(|cost| cost.at).max().unwrap_or(1);
    let title = format!("Nanoseconds a packet, by number of {}", course.axis.name());
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (1.0..f64::from(most)).log_scale(),
            (RANGE[0]..RANGE[1]).log_scale(),
        )?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(course.axis.name()).y_desc("ns").draw()?;
    for (line, colour) in course.lines.iter().zip(COLOURS) {
        let points = line.costs.iter().map(|it| (f64::from(it.at), it.median));
        let series = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
        let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
        chart
            .draw_series(series)?
            .label(line.name.as_str())
            .legend(key);
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
