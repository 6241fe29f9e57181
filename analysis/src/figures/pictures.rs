//! Matrices that a strategy shows of itself: the feature maps of a generator's hidden layer at the start and after an
//! epoch, as in figure 1 of VIM-NAS.

use std::collections::BTreeMap;

use nasfw_framework::events::Event;
use nasfw_framework::palette::INK;

use super::heat::Heat;
use super::svg::{number, width};
use super::{Figure, Panel};
use crate::record::Record;

type Pictures = BTreeMap<String, Vec<Vec<f64>>>;

pub(super) fn draw(record: &Record) -> Option<Figure> {
    let mut shown: Vec<(u64, &Pictures)> = Vec::new();
    for event in &record.events {
        if let Event::Pictures {
            epoch, pictures, ..
        } = event
        {
            // What was rolled back is left out.
            while shown.pop_if(|(e, _)| *e >= *epoch).is_some() {}
            shown.push((*epoch, pictures));
        }
    }
    shown.retain(|(_, pictures)| !pictures.is_empty());
    let last = shown.last()?.0;
    shown.retain(|(epoch, _)| *epoch <= 1 || *epoch == last);
    // One scale for all, so that they can be compared.
    let values = || {
        let matrices = shown.iter().flat_map(|(_, pictures)| pictures.values());
        matrices.flatten().flatten().copied()
    };
    let finite = || values().filter(|v| v.is_finite());
    let range = (
        finite().fold(f64::INFINITY, f64::min).min(0.0),
        finite().fold(f64::NEG_INFINITY, f64::max).max(0.0),
    );
    let mut names: Vec<&String> = shown.iter().flat_map(|(_, p)| p.keys()).collect();
    names.sort_by_key(|name| natural(name));
    names.dedup();
    let panel = |name: &String, (epoch, pictures): &(u64, &Pictures)| -> Option<Panel> {
        let values = pictures.get(name)?;
        let heat = Heat {
            rows: &[],
            columns: &[],
            values,
            range,
            field: (12.0, 12.0),
            numbers: false,
            colours: &[INK],
        };
        Some(heat.panel(format!(
            "{}, epoch {epoch}",
            name.trim_start_matches("hidden/")
        )))
    };
    // A block of panels per moment, as the paper shows them.
    let panels: Vec<Panel> = shown
        .iter()
        .flat_map(|moment| names.iter().filter_map(move |name| panel(name, moment)))
        .map(|panel| Panel {
            // The title is wider than most matrices.
            width: panel.width.max(width(&panel.title) + 4.0),
            ..panel
        })
        .collect();
    Some(Figure {
        kind: "pictures",
        title: format!("What {} shows of itself", record.setting("strategy.name")),
        caption: format!(
            "Matrices of the strategy (for VIM, the feature maps of its generator's hidden layer: rows are edges, \
             columns candidates), all on one scale from {} (empty) to {} (full).",
            number(range.0),
            number(range.1)
        ),
        legend: Vec::new(),
        panels,
        columns: 7,
        rows: true,
    })
}

/// Sorts `hidden/2` before `hidden/10`.
fn natural(name: &str) -> Vec<(u64, String)> {
    let part = |p: &str| match p.parse::<u64>() {
        Ok(n) => (n, String::new()),
        Err(_) => (u64::MAX, p.to_owned()),
    };
    name.split('/').map(part).collect()
}
