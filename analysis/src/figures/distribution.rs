//! The whole distribution at the start, after one epoch and at the end, side by side, as in figure 3 of VIM-NAS.

use nasfw_framework::palette::{LINES, Tone};

use super::Figure;
use super::heat::Heat;
use super::weights::{longest, looks};
use crate::record::{Moment, Record};

pub(super) fn draw(record: &Record) -> Option<Figure> {
    let shown = landmarks(record);
    if shown.is_empty() {
        return None;
    }
    let mut panels = Vec::new();
    for (at, group) in record.groups.iter().enumerate() {
        let rows: Vec<String> = group.rows.iter().map(|r| r.name.clone()).collect();
        let columns = longest(group);
        let colours = looks(group)
            .into_iter()
            .map(|look| LINES[look % LINES.len()]);
        let colours: Vec<Tone> = colours.collect();
        for (when, moment) in &shown {
            let values = moment.marginals.and_then(|m| m.get(at));
            let heat = Heat {
                rows: &rows,
                columns: &columns,
                values: values.map_or(&[], Vec::as_slice),
                range: (0.0, 1.0),
                field: (26.0, 18.0),
                numbers: true,
                colours: &colours,
            };
            panels.push(heat.panel(format!("{}, {when}", group.name)));
        }
    }
    Some(Figure {
        kind: "distribution",
        title: "Distribution over architectures".into(),
        caption: "Weight of every candidate (columns) of every row, from 0 (empty) to 1 (full). Candidates have the colours \
                  that they have elsewhere."
            .into(),
        legend: Vec::new(),
        panels,
        columns: shown.len(),
        rows: true,
    })
}

/// The moments before training, after the first epoch and at the end (or now), as far as there are weights.
fn landmarks(record: &Record) -> Vec<(String, Moment<'_>)> {
    let known: Vec<Moment<'_>> = record
        .moments()
        .into_iter()
        .filter(|m| m.marginals.is_some())
        .collect();
    let mut shown: Vec<(String, Moment<'_>)> = Vec::new();
    let start = known.iter().find(|m| m.step == 0);
    shown.extend(start.map(|m| ("before training".to_owned(), *m)));
    let first = known.iter().find(|m| m.epoch == 1);
    shown.extend(first.map(|m| ("after 1 epoch".to_owned(), *m)));
    if let Some(last) = known.last()
        && shown.last().is_none_or(|(_, m)| m.step < last.step)
    {
        shown.push((format!("after {} steps", last.step), *last));
    }
    shown
}
