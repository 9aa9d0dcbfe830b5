//! Pictures: rates against the number of Services.

use crate::contestant::{Contestant, Environment};
use crate::load::Kind;
use crate::results::Results;
use anyhow::Result;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (900, 480);
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(130, 130, 130),
    RGBColor(150, 100, 200),
    RGBColor(220, 120, 0),
    RGBColor(200, 0, 0),
    RGBColor(240, 150, 150),
    RGBColor(0, 110, 200),
    RGBColor(0, 150, 60),
];

/// One picture for each kind, environment and number of nodes that more than one number of Services was measured
/// with.
pub(crate) fn draw(results: &Results, folder: &Path) -> Result<()> {
    for kind in Kind::ALL {
        for environment in [Environment::Bare, Environment::Tracking] {
            for nodes in [1, 2] {
                draw_one(results, folder, kind, environment, nodes)?;
            }
        }
    }
    Ok(())
}

/// A line: Services, and the share of direct.
fn line(
    results: &Results,
    contestant: Contestant,
    kind: Kind,
    environment: Environment,
    nodes: u8,
) -> Vec<(f64, f64)> {
    let heats = results.heats.iter();
    let heats =
        heats.filter(|it| it.setting.environment == environment && it.setting.nodes == nodes);
    let points = heats.filter_map(|heat| {
        let share = heat.ratio([contestant, Contestant::Direct], kind)?;
        Some((f64::from(heat.setting.services), share.median))
    });
    points.collect()
}

fn draw_one(
    results: &Results,
    folder: &Path,
    kind: Kind,
    environment: Environment,
    nodes: u8,
) -> Result<()> {
    let lines = Contestant::ALL.map(|it| (it, line(results, it, kind, environment, nodes)));
    if lines.iter().all(|(_, points)| points.len() < 2) {
        return Ok(());
    }
    let name = format!("{}-{}-{nodes}.svg", kind.name(), environment.name()).replace(' ', "-");
    let path = folder.join(name);
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!(
        "{}, {}, {nodes} node(s): share of direct",
        kind.name(),
        environment.name()
    );
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d((1.0..100_000.0).log_scale(), 0.0..1.1)?;
    chart.configure_mesh().x_desc("Services").draw()?;
    for ((contestant, points), colour) in lines.into_iter().zip(COLOURS) {
        let series = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
        let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
        chart
            .draw_series(series)?
            .label(contestant.name())
            .legend(key);
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
