//! Anytime regret of strategies with confidence bands, as in figure 4 of VIM-NAS: one panel per setting of a
//! comparison.

use super::chart::{Axes, Line};
use super::{Figure, Panel, look};
use crate::compare::{Comparison, Setting};

pub(super) fn draw(comparison: &Comparison) -> Option<Figure> {
    let panels: Vec<Panel> = comparison
        .settings
        .iter()
        .filter_map(|setting| panel(comparison, setting))
        .collect();
    if panels.is_empty() {
        return None;
    }
    let missing = match comparison.partial {
        true => " Not complete: the lines are of the seeds that all strategies have finished.",
        false => "",
    };
    Some(Figure {
        kind: "regret",
        title: "Regret along the way".into(),
        caption: format!(
            "Optimum minus metric of the architecture that would have been derived then: mean over the seeds, with its \
             {:.0} % bootstrap interval as a band.{missing}",
            100.0 * (1.0 - comparison.level)
        ),
        legend: look::legend(comparison.strategies.iter().map(String::as_str)),
        panels,
        columns: 2,
        rows: false,
    })
}

fn panel(comparison: &Comparison, setting: &Setting) -> Option<Panel> {
    let line = |figures: &crate::compare::StrategyFigures| {
        let anytime = figures.anytime.as_ref()?;
        let x = || setting.grid.iter().copied();
        let banded = anytime.low.len() == setting.grid.len();
        Some(Line {
            name: figures.strategy.clone(),
            // The place in the plan, so that a strategy looks the same in every panel.
            look: comparison
                .strategies
                .iter()
                .position(|s| *s == figures.strategy)?,
            points: x().zip(anytime.mean.iter().copied()).collect(),
            band: match banded {
                true => anytime
                    .low
                    .iter()
                    .copied()
                    .zip(anytime.high.iter().copied())
                    .collect(),
                false => Vec::new(),
            },
        })
    };
    let lines: Vec<Line> = setting.strategies.iter().filter_map(line).collect();
    if lines.iter().all(|l| l.points.is_empty()) {
        return None;
    }
    let axes = Axes {
        x: setting.budget.unit.words(),
        y: "regret",
        range: None,
        log: true,
        size: (520.0, 320.0),
    };
    Some(axes.panel(title(setting), &lines))
}

/// A setting in words.
pub(crate) fn title(setting: &Setting) -> String {
    let data = setting.dataset.iter().map(|d| format!(", {d}"));
    format!(
        "{}{}, {}",
        setting.space,
        data.collect::<String>(),
        setting.budget
    )
}
