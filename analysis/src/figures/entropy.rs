//! How undecided every row is, over the steps.

use nasfw_framework::Result;
use nasfw_framework::arch::row_entropy;

use super::chart::{Axes, Line};
use super::weights::rows;
use super::{Figure, look};
use crate::record::{Moment, Record};

pub(super) fn draw(record: &Record, edge: Option<&str>) -> Result<Option<Figure>> {
    let moments = record.moments();
    let known = moments.iter().any(|m| m.marginals.is_some());
    let Some(shown) = rows(record, edge)?.filter(|_| known) else {
        return Ok(None);
    };
    // A row of one candidate is always decided.
    let open: Vec<usize> = shown
        .rows
        .iter()
        .copied()
        .filter(|&r| shown.group.rows[r].candidates.len() > 1)
        .collect();
    if open.is_empty() {
        return Ok(None);
    }
    let line = |(look, &row): (usize, &usize)| {
        let entropy = |m: &Moment<'_>| {
            let weights = m.marginals?.get(shown.at)?.get(row)?;
            Some((
                m.step as f64,
                row_entropy(weights, shown.group.rows[row].keep),
            ))
        };
        Line {
            name: shown.group.rows[row].name.clone(),
            look,
            points: moments.iter().filter_map(entropy).collect(),
            ..Line::default()
        }
    };
    let lines: Vec<Line> = open.iter().enumerate().map(line).collect();
    let axes = Axes {
        x: "steps",
        y: "entropy",
        range: Some((0.0, 1.0)),
        log: false,
        size: (520.0, 300.0),
    };
    Ok(Some(Figure {
        kind: "entropy",
        title: format!("Entropy of the rows of {}", shown.group.name),
        caption: "Entropy of the weights of every row: 1 is undecided, 0 is decided.".into(),
        legend: look::legend(lines.iter().map(|l| l.name.as_str())),
        panels: vec![axes.panel("", &lines)],
        columns: 1,
        rows: false,
    }))
}
