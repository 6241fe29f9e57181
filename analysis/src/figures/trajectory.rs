//! What a search reached over its steps, or over the simulated seconds of training where a table stands for it: the
//! architecture that would have been derived then, and the best one so far.

use super::chart::{Axes, Line, LineKind};
use super::{Figure, look, shown};
use crate::record::Record;

pub(super) fn draw(record: &Record) -> Option<Figure> {
    let metric = record.main_regret()?;
    let moments = record.moments();
    let simulated = moments.iter().any(|m| m.simulated > 0.0);
    // When, what would have been derived, and the optimum.
    let points: Vec<(f64, f64, f64)> = moments
        .iter()
        .filter_map(|m| {
            let value = *m.metrics?.get(metric)?;
            let at = if simulated {
                m.simulated
            } else {
                m.step as f64
            };
            Some((at, value, value + m.regret?.get(metric)?))
        })
        .collect();
    let names = ["derived then", "best so far"];
    let line = |look: usize, points| Line {
        name: names[look].into(),
        look,
        points,
        ..Line::default()
    };
    let mut best = f64::NEG_INFINITY;
    let raised = points.iter().map(|(at, value, _)| {
        best = best.max(*value);
        (*at, best)
    });
    let best = line(1, raised.collect());
    let optimum = Line {
        points: points
            .iter()
            .map(|(at, _, optimum)| (*at, *optimum))
            .collect(),
        style: LineKind::Faint,
        ..Line::default()
    };
    let derived = line(
        0,
        points.iter().map(|(at, value, _)| (*at, *value)).collect(),
    );
    let axes = Axes {
        x: if simulated {
            "simulated seconds"
        } else {
            "steps"
        },
        y: "metric",
        range: None,
        log: false,
        size: (520.0, 300.0),
    };
    Some(Figure {
        kind: "trajectory",
        title: "What the search reached".into(),
        caption: format!(
            "{} of the architecture that would have been derived then, and of the best one so far; the thin line is the optimum.",
            shown(metric, record.is_predicted(metric))
        ),
        legend: look::legend(names),
        panels: vec![axes.panel("", &[optimum, best, derived])],
        columns: 1,
        rows: false,
    })
}
