//! Loss and accuracy of the supernet over the steps, and what the benchmark says of the architecture.

use std::collections::BTreeMap;

use nasfw_framework::events::{Event, Meter};

use super::chart::{Axes, Line};
use super::{Figure, Panel, look};
use crate::record::Record;

pub(super) fn draw(record: &Record) -> Option<Figure> {
    let mut meters: BTreeMap<&str, Vec<(u64, Meter)>> = BTreeMap::new();
    for event in &record.events {
        if let Event::Progress {
            step, meters: now, ..
        } = event
        {
            for (split, meter) in now {
                let line = meters.entry(split).or_default();
                // What was rolled back is left out.
                while line.pop_if(|(s, _)| *s >= *step).is_some() {}
                line.push((*step, *meter));
            }
        }
    }
    let names: Vec<&str> = meters.keys().copied().collect();
    let lines = |value: fn(&Meter) -> f64| -> Vec<Line> {
        let line = |(look, points): (usize, &Vec<(u64, Meter)>)| Line {
            name: names[look].to_owned(),
            look,
            points: points.iter().map(|(s, m)| (*s as f64, value(m))).collect(),
            ..Line::default()
        };
        meters.values().enumerate().map(line).collect()
    };
    let axes = |y, range| Axes {
        x: "step",
        y,
        range,
        log: false,
        size: (420.0, 260.0),
    };
    let mut panels = Vec::new();
    if !meters.is_empty() {
        panels.push(axes("loss", None).panel("Loss", &lines(|m| m.loss)));
        let accuracy = lines(|m| m.accuracy);
        panels.push(axes("accuracy", Some((0.0, 1.0))).panel("Accuracy", &accuracy));
    }
    panels.extend(metrics(record));
    if panels.is_empty() {
        return None;
    }
    Some(Figure {
        kind: "curves",
        title: "Loss and accuracy".into(),
        caption: match record.setting("strategy.name").as_str() {
            "train" => "Means since the last report, on training batches.",
            _ => {
                "Means since the last report, of the supernet on training batches: no estimate of what the derived \
                 network reaches."
            }
        }
        .into(),
        legend: look::legend(names),
        panels,
        columns: 2,
        rows: false,
    })
}

/// A panel per metric that the benchmark knows: of the architecture that would be derived.
fn metrics(record: &Record) -> Vec<Panel> {
    let moments = record.moments();
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for moment in &moments {
        for (name, value) in moment.regret.into_iter().flatten() {
            let line = lines.entry(moment.trust.shown(name)).or_default();
            line.push((moment.step as f64, *value));
        }
    }
    let axes = Axes {
        x: "step",
        y: "regret",
        range: None,
        log: false,
        size: (420.0, 260.0),
    };
    let panel = |(name, points): (String, Vec<(f64, f64)>)| {
        let line = Line {
            name: name.clone(),
            points,
            ..Line::default()
        };
        axes.panel(format!("Regret in {name}"), &[line])
    };
    lines.into_iter().map(panel).collect()
}
