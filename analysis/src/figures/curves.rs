//! Loss and accuracy over the steps, and what the benchmark says of the architecture: of one run, or of several runs over
//! each other.

use std::collections::BTreeMap;

use nasfw_framework::events::Event;

use super::chart::{Axes, Line};
use super::{Figure, look, shown};
use crate::compare::{Comparison, State};
use crate::record::Record;

/// Points of a line: steps and values.
type Points = Vec<(f64, f64)>;

/// More groups than these have no bands.
const BANDS: usize = 6;

const REGRET: &str = "Regret in";

/// A panel's lines by their names.
struct Chart {
    title: String,
    y: &'static str,
    range: Option<(f64, f64)>,
    lines: BTreeMap<String, Points>,
}

impl Chart {
    fn axes(&self) -> Axes<'static> {
        Axes {
            x: "steps",
            y: self.y,
            range: self.range,
            log: false,
            size: (420.0, 260.0),
        }
    }
}

pub(super) fn draw(record: &Record) -> Option<Figure> {
    let charts = charts(record, &|metric| record.is_predicted(metric));
    if charts.is_empty() {
        return None;
    }
    // A name has the same look in all panels; those of one line say its name themselves.
    let several = charts.iter().filter(|c| !c.title.starts_with(REGRET));
    let mut names: Vec<&String> = several.flat_map(|c| c.lines.keys()).collect();
    names.sort();
    names.dedup();
    let line = |(name, points): (&String, &Points)| Line {
        name: name.clone(),
        look: names.iter().position(|n| *n == name).unwrap_or_default(),
        points: points.clone(),
        ..Line::default()
    };
    let panel = |c: &Chart| {
        let lines: Vec<Line> = c.lines.iter().map(line).collect();
        c.axes().panel(c.title.clone(), &lines)
    };
    Some(Figure {
        kind: "curves",
        title: "Loss and accuracy".into(),
        caption: match record.setting("strategy.name").as_str() {
            "train" => "Means since the last report on training batches; on all test images where these were measured.",
            _ => {
                "Means since the last report, of the supernet on training batches: no estimate of what the derived \
                 network reaches."
            }
        }
        .into(),
        legend: look::legend(names.iter().map(|n| n.as_str())),
        panels: charts.iter().map(panel).collect(),
        columns: 2,
        rows: false,
    })
}

/// The finished trials of a comparison over each other, a line per strategy and setting.
pub(super) fn of_comparison(comparison: &Comparison, runs: &[Option<&Record>]) -> Option<Figure> {
    let mut groups: Vec<(String, Vec<&Record>)> = Vec::new();
    for (trial, run) in comparison.trials.iter().zip(runs) {
        let Some(run) = run.filter(|_| trial.state == State::Done) else {
            continue;
        };
        let name = match comparison.settings.len() {
            0 | 1 => trial.strategy.clone(),
            _ => {
                let data = trial.dataset.iter().map(|d| format!(", {d}"));
                let data: String = data.collect();
                format!(
                    "{}, {}{data}, {}",
                    trial.strategy, trial.space, trial.budget
                )
            }
        };
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, runs)) => runs.push(run),
            None => groups.push((name, vec![run])),
        }
    }
    together(&groups)
}

/// Several runs over each other: each group is a line of its mean, with a standard deviation to both sides where it has
/// several runs. None where no group has a curve.
pub(crate) fn together(groups: &[(String, Vec<&Record>)]) -> Option<Figure> {
    // Panels by what they show; in each the runs' curves by group.
    let mut panels: BTreeMap<String, (Axes<'static>, BTreeMap<usize, Vec<Points>>)> =
        BTreeMap::new();
    // What is predicted in one of them is marked in all: they stand in one panel.
    let all = || groups.iter().flat_map(|(_, runs)| runs);
    let predicted = |metric: &str| all().any(|run| run.is_predicted(metric));
    for (g, (_, runs)) in groups.iter().enumerate() {
        for chart in runs.iter().flat_map(|run| charts(run, &predicted)) {
            let axes = chart.axes();
            for (name, points) in chart.lines {
                let title = match chart.title.ends_with(&name) {
                    true => chart.title.clone(),
                    false => format!("{}, {name}", chart.title),
                };
                let (_, curves) = panels
                    .entry(title)
                    .or_insert_with(|| (axes, BTreeMap::new()));
                curves.entry(g).or_default().push(points);
            }
        }
    }
    if panels.is_empty() {
        return None;
    }
    let panel =
        |(title, (axes, curves)): (String, (Axes<'static>, BTreeMap<usize, Vec<Points>>))| {
            let line = |(g, runs): (usize, Vec<Points>)| {
                let (points, band) = mean(&runs);
                Line {
                    name: groups[g].0.clone(),
                    look: g,
                    points,
                    // Many bands upon each other hide the lines.
                    band: if groups.len() > BANDS {
                        Vec::new()
                    } else {
                        band
                    },
                    ..Line::default()
                }
            };
            let lines: Vec<Line> = curves.into_iter().map(line).collect();
            axes.panel(title, &lines)
        };
    Some(Figure {
        kind: "curves",
        title: "Curves".into(),
        caption: format!(
            "Means over the seeds at the steps that all of them report; bands are a standard deviation to both sides, if no \
             more than {BANDS} lines stand together."
        ),
        legend: look::legend(groups.iter().map(|(name, _)| name.as_str())),
        panels: panels.into_iter().map(panel).collect(),
        columns: 2,
        rows: false,
    })
}

/// Mean over several curves at the steps that all have, and mean ± standard deviation; no band of a single one.
fn mean(runs: &[Points]) -> (Points, Points) {
    let mut at: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (step, value) in runs.iter().flatten().filter(|p| p.1.is_finite()) {
        at.entry(*step as u64).or_default().push(*value);
    }
    at.retain(|_, values| values.len() == runs.len());
    let summed = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        (mean, (squares / (n - 1.0).max(1.0)).sqrt())
    };
    let figures: Vec<(f64, (f64, f64))> = at.iter().map(|(s, v)| (*s as f64, summed(v))).collect();
    let band = |(_, (mean, sd)): &(f64, (f64, f64))| (mean - sd, mean + sd);
    (
        figures
            .iter()
            .map(|(step, (mean, _))| (*step, *mean))
            .collect(),
        match runs.len() {
            1 => Vec::new(),
            _ => figures.iter().map(band).collect(),
        },
    )
}

/// Everything that a run has of curves. A metric of which a value is `predicted` is marked, whether the others were measured
/// or not: it is one line.
fn charts(record: &Record, predicted: &dyn Fn(&str) -> bool) -> Vec<Chart> {
    let mut loss: BTreeMap<String, Points> = BTreeMap::new();
    let mut accuracy = loss.clone();
    let mut regret = loss.clone();
    let add = |lines: &mut BTreeMap<String, Points>, name: &str, step: u64, value: f64| {
        let line = lines.entry(name.to_owned()).or_default();
        // What was rolled back is left out.
        while line.pop_if(|(s, _)| *s >= step as f64).is_some() {}
        line.push((step as f64, value));
    };
    for event in &record.events {
        if let Event::Progress { step, meters, .. } = event {
            for (split, meter) in meters {
                add(&mut loss, split, *step, meter.loss);
                add(&mut accuracy, split, *step, 100.0 * meter.accuracy);
            }
        }
    }
    let main = record.main_regret();
    let main_shown = main.map(|name| shown(name, predicted(name)));
    for moment in record.moments() {
        // What a training measures of its network on the test images.
        for (name, lines, scale) in [
            ("test-loss", &mut loss, 1.0),
            ("test-top1", &mut accuracy, 100.0),
        ] {
            if let Some(value) = moment.metrics.and_then(|m| m.get(name)) {
                add(lines, "test", moment.step, scale * value);
            }
        }
        let value = main.and_then(|name| moment.regret?.get(name));
        if let (Some(name), Some(value)) = (&main_shown, value) {
            add(&mut regret, name, moment.step, *value);
        }
    }
    let chart = |title: &str, y, range, lines| Chart {
        title: title.to_owned(),
        y,
        range,
        lines,
    };
    let mut charts = vec![
        chart("Loss", "loss (nats)", None, loss),
        chart("Accuracy", "accuracy (%)", Some((0.0, 100.0)), accuracy),
    ];
    charts.retain(|c| !c.lines.is_empty());
    let alone = |(name, points): (String, Points)| Chart {
        title: format!("{REGRET} {name}"),
        y: "regret",
        range: None,
        lines: BTreeMap::from([(name, points)]),
    };
    charts.extend(regret.into_iter().map(alone));
    charts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_the_steps_that_all_runs_have() {
        let runs = [
            vec![(0.0, 1.0), (10.0, 4.0), (20.0, f64::NAN)],
            vec![(0.0, 3.0), (10.0, 4.0), (20.0, 1.0), (30.0, 1.0)],
        ];
        let (points, band) = mean(&runs);
        assert_eq!(points, [(0.0, 2.0), (10.0, 4.0)]);
        let root = 2.0_f64.sqrt();
        assert_eq!(band, [(2.0 - root, 2.0 + root), (4.0, 4.0)]);
        assert_eq!(mean(&runs[1..]).1, []);
    }
}
