//! Anytime architecture weights: every candidate of a row over the steps, as in figures 2, 6, 7 and 9 of VIM-NAS
//! (Wang et al., ICCV 2021, "Learning Latent Architectural Distribution in Differentiable Neural Architecture Search
//! via Variational Information Maximization"), which show the first edge of the normal cell.

use nasfw_framework::arch::{Group, Role};
use nasfw_framework::{Error, Result};

use super::chart::{Axes, Line};
use super::{Entry, Figure, look};
use crate::record::Record;

/// Small panels, several beside each other; the width fits a phone.
pub(super) const PANEL: (f64, f64) = (340.0, 220.0);

/// Rows that a figure shows: a group, and which of its rows.
pub(super) struct Rows<'a> {
    /// Index of the group.
    pub at: usize,
    /// The group.
    pub group: &'a Group,
    /// Indices of the rows.
    pub rows: Vec<usize>,
}

/// The rows that `edge` names: one row, a whole group, or without a name the first group.
///
/// # Errors
/// [`Error::Incompatible`] for a name of nothing.
pub(super) fn rows<'a>(record: &'a Record, edge: Option<&str>) -> Result<Option<Rows<'a>>> {
    let whole = |at: usize| Rows {
        at,
        group: &record.groups[at],
        rows: (0..record.groups[at].rows.len()).collect(),
    };
    let Some(edge) = edge else {
        return Ok((!record.groups.is_empty()).then(|| whole(0)));
    };
    if let Some(at) = record.groups.iter().position(|g| g.name == edge) {
        return Ok(Some(whole(at)));
    }
    let groups = || record.groups.iter().enumerate();
    let found = groups().find_map(|(at, group)| {
        let is = |name: &str| name == edge || format!("{}/{name}", group.name) == edge;
        let row = group.rows.iter().position(|r| is(&r.name))?;
        Some(Rows {
            at,
            group,
            rows: vec![row],
        })
    });
    match found {
        Some(rows) => Ok(Some(rows)),
        None => {
            let names: Vec<String> = groups()
                .flat_map(|(_, g)| {
                    let rows = g.rows.iter().map(|r| format!("{}/{}", g.name, r.name));
                    std::iter::once(g.name.clone()).chain(rows)
                })
                .collect();
            Err(Error::Incompatible {
                what: format!("--edge {edge}"),
                why: "the run has no such row or group".into(),
                help: format!("it has {}", names.join(", ")),
            })
        }
    }
}

pub(super) fn draw(record: &Record, edge: Option<&str>) -> Result<Option<Figure>> {
    let Some(shown) = rows(record, edge)?.filter(|_| has_weights(record)) else {
        return Ok(None);
    };
    let group = shown.group;
    let panels: Vec<(String, Vec<Line>)> = shown
        .rows
        .iter()
        .map(|&row| (group.rows[row].name.clone(), lines(record, &shown, row)))
        .collect();
    let title = match shown.rows[..] {
        [row] => format!("Weights of {}, {}", group.name, group.rows[row].name),
        _ => format!("Weights of {}", group.name),
    };
    Ok(Some(figure(title, entries(group), &panels)))
}

/// One row of several runs, a panel per run under its name; without `edge` the first row. Runs without weights are left
/// out.
pub(super) fn beside(runs: &[(&str, &Record)], edge: Option<&str>) -> Result<Option<Figure>> {
    let mut panels: Vec<(String, Vec<Line>)> = Vec::new();
    let mut row_name = String::new();
    let mut legend: Vec<Entry> = Vec::new();
    for (name, record) in runs.iter().copied().filter(|(_, r)| has_weights(r)) {
        let Some(shown) = rows(record, edge)? else {
            continue;
        };
        let Some(&row) = shown.rows.first() else {
            continue;
        };
        row_name = format!("{}, {}", shown.group.name, shown.group.rows[row].name);
        let columns = entries(shown.group);
        if columns.len() > legend.len() {
            legend = columns;
        }
        panels.push((name.to_owned(), lines(record, &shown, row)));
    }
    if panels.is_empty() {
        return Ok(None);
    }
    let title = format!("Weights of {row_name}");
    Ok(Some(figure(title, legend, &panels)))
}

fn has_weights(record: &Record) -> bool {
    record.moments().iter().any(|m| m.marginals.is_some())
}

/// The candidates of a row over the steps.
fn lines(record: &Record, shown: &Rows<'_>, row: usize) -> Vec<Line> {
    let moments = record.moments();
    let looks = looks(shown.group);
    let line = |(c, name): (usize, &String)| {
        let weight = |m: &crate::record::Moment<'_>| {
            let weight = *m.marginals?.get(shown.at)?.get(row)?.get(c)?;
            Some((m.step as f64, weight))
        };
        Line {
            name: name.clone(),
            look: looks[c],
            points: moments.iter().filter_map(weight).collect(),
            ..Line::default()
        }
    };
    let names = &candidates(shown.group)[row];
    names.iter().enumerate().map(line).collect()
}

fn figure(title: String, legend: Vec<Entry>, panels: &[(String, Vec<Line>)]) -> Figure {
    // Weights of sigmoids and the like need not be between 0 and 1.
    let points = || {
        panels
            .iter()
            .flat_map(|(_, lines)| lines)
            .flat_map(|l| &l.points)
    };
    let within = points().all(|p| p.1.is_nan() || (-1e-6..=1.0 + 1e-6).contains(&p.1));
    let axes = Axes {
        x: "steps",
        y: "weight",
        range: within.then_some((0.0, 1.0)),
        log: false,
        size: match panels.len() {
            1 => (520.0, 300.0),
            _ => PANEL,
        },
    };
    Figure {
        kind: "weights",
        title,
        caption: "Weight of every candidate over the steps of the search: what the architecture is derived by.".into(),
        legend,
        panels: panels
            .iter()
            .map(|(name, lines)| axes.panel(if panels.len() == 1 { "" } else { name }, lines))
            .collect(),
        columns: 3,
        rows: false,
    }
}

/// Names of all rows' candidates; see [`longest`].
fn candidates(group: &Group) -> Vec<Vec<String>> {
    let all = longest(group);
    let name = |row: &nasfw_framework::arch::Row| all[..row.candidates.len()].to_vec();
    group.rows.iter().map(name).collect()
}

/// How the candidates of the columns look: operations by their names, sources by their places.
pub(super) fn looks(group: &Group) -> Vec<usize> {
    let names = longest(group);
    match group.role {
        Role::Operations => look::operations(&names),
        Role::Topology => (0..names.len()).collect(),
    }
}

fn entries(group: &Group) -> Vec<Entry> {
    let named = longest(group).into_iter().zip(looks(group));
    named.map(look::entry).collect()
}

/// Names of the columns: those of the longest row if all rows begin like it, else numbers.
pub(super) fn longest(group: &Group) -> Vec<String> {
    let longest = group.rows.iter().max_by_key(|r| r.candidates.len());
    let names = longest.map(|r| r.candidates.clone()).unwrap_or_default();
    let same = group.rows.iter().all(|r| names.starts_with(&r.candidates));
    match same {
        true => names,
        false => (1..=names.len())
            .map(|c| format!("candidate {c}"))
            .collect(),
    }
}
